import { identityVersion, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import { findLiveSession } from '../identity/index.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import { handleWhy, listApps, listNeeds } from './device-apps.ts';
import { answerBrowserSignIn } from './device-browser-sign-in.ts';
import { answerOtp } from './device-otp.ts';
import { answerOwn } from './device-own.ts';
import { findPath, findTunnel } from './device-paths.ts';
import { answerService } from './device-service.ts';
import { sessionFactsOf } from './device-session.ts';
import { handleSignIn, handleSignOut } from './device-sign-in.ts';
import { takeTurn } from './device-throttle.ts';

/** What a device asks, and waits for the answer to. */
export type DeviceRequest = Extract<FromDevice, { id: number }>;

/** Carries out one request of a device. Throws what it is refused with. */
export async function answerDevice(
  services: Services,
  peer: DevicePeer,
  dialler: ControlPeer,
  request: DeviceRequest,
): Promise<ToDevice> {
  const { id } = request;
  // Whoever lost a relay asks for many paths at once.
  const isResume = request.type === 'path' && request.tunnel !== null;
  takeTurn(isResume ? services.resumeThrottle : services.requestThrottle, services, peer);
  switch (request.type) {
    case 'sign_in':
      return { type: 'signed_in', id, session: await handleSignIn(services, peer, request) };
    case 'sign_out':
      return signOut(services, peer, id);
    case 'status':
      return handleStatus(services, peer, dialler, id);
    case 'apps':
      takeTurn(services.questionThrottle, services, peer);
      return { type: 'apps', id, apps: await listApps(services, peer) };
    case 'grant':
      return { type: 'permit', id, ...(await findTunnel(services, peer, request.app)) };
    case 'path':
      return { type: 'path_permit', id, ...(await findPath(services, peer, request)) };
    case 'why':
      takeTurn(services.questionThrottle, services, peer);
      return handleWhy(services, peer, id, request.app);
    case 'posture_needs':
      takeTurn(services.questionThrottle, services, peer);
      return { type: 'posture_needs', id, ...(await listNeeds(services, peer)) };
    case 'otp_begin':
    case 'otp_confirm':
    case 'otp_list':
    case 'otp_remove':
      return answerOtp(services, peer, request);
    case 'providers':
    case 'sign_in_begin':
    case 'sign_in_finish':
      return answerBrowserSignIn(services, peer, request);
    case 'service_challenge':
    case 'service_sign_in':
      return answerService(services, peer, request);
    case 'devices':
    case 'device_revoke':
    case 'factors':
    case 'recovery_begin':
    case 'passkey_remove':
      return answerOwn(services, peer, request);
  }
}

async function signOut(
  services: Services,
  peer: DevicePeer,
  id: number,
): Promise<Extract<ToDevice, { type: 'signed_out' | 'done' }>> {
  const logoutUrl = await handleSignOut(services, peer);
  return peer.version >= identityVersion
    ? { type: 'signed_out', id, logoutUrl }
    : { type: 'done', id };
}

/** Who is signed in at the device, and how long its certificate lasts. */
async function handleStatus(
  services: Services,
  peer: DevicePeer,
  dialler: ControlPeer,
  id: number,
): Promise<Extract<ToDevice, { type: 'status' }>> {
  const { store, clock } = services;
  const session = await findLiveSession(store.db, peer.id, clock.nowMs());
  const device = await store.db
    .selectFrom('devices')
    .select(['hostname', 'state'])
    .where('id', '=', peer.id)
    .executeTakeFirstOrThrow();
  return {
    type: 'status',
    id,
    session: session ? await sessionFactsOf(services, session, peer.version) : null,
    device: {
      id: peer.id,
      hostname: device.hostname,
      certificateUntilMs: dialler.certificateUntilMs,
      // One that was revoked hears so by the end of its channel.
      ...(peer.version >= identityVersion && device.state !== 'revoked'
        ? { state: device.state }
        : {}),
    },
  };
}
