import { ZtnaError, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import { grantTunnel } from '../grant/grant.ts';
import type { PathPermit } from '../grant/permit.ts';
import { resumableVersion, resumeTunnel } from '../grant/resume.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import { needSession } from './device-session.ts';
import { takeTurn } from './device-throttle.ts';

/**
 * A new tunnel, as agents ask for it that do not take tunnels up again. Throws ERR_LIMIT_RATE,
 * ERR_IDENTITY_SIGN_IN_NEEDED, and what access is refused with.
 */
export async function findTunnel(
  services: Services,
  peer: DevicePeer,
  app: string,
): Promise<Omit<Extract<ToDevice, { type: 'permit' }>, 'type' | 'id'>> {
  takeTurn(services.grantThrottle, services, peer);
  const session = await needSession(services, peer.id);
  const asker = { device: peer.id, address: peer.address, version: peer.version };
  const wanted = { session: session.id, app, avoid: [] };
  const { relays, ...permit } = await grantTunnel(services, asker, wanted);
  return { ...permit, relays: relays.map((relay) => ({ id: relay.id, url: relay.url })) };
}

/**
 * A path for a new tunnel or for one that is there. Throws ERR_MESSAGE_UNEXPECTED under a version whose tunnels do not
 * outlive their paths, ERR_LIMIT_RATE, ERR_IDENTITY_SIGN_IN_NEEDED, and what access is refused with.
 */
export async function findPath(
  services: Services,
  peer: DevicePeer,
  request: Extract<FromDevice, { type: 'path' }>,
): Promise<PathPermit> {
  if (peer.version < resumableVersion) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
  const asker = { device: peer.id, address: peer.address, version: peer.version };
  const { tunnel, app, avoid } = request;
  if (tunnel !== null) return resumeTunnel(services, asker, { tunnel, app, avoid });
  takeTurn(services.grantThrottle, services, peer);
  const session = await needSession(services, peer.id);
  return grantTunnel(services, asker, { session: session.id, app, avoid });
}
