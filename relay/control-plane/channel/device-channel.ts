import type { WebSocket } from 'ws';
import {
  fromDevice,
  toDevice,
  toZtnaError,
  ZtnaError,
  type DeviceId,
  type FromDevice,
  type RevocationEntry,
  type ToDevice,
  type TunnelId,
} from '../../../protocol/index.ts';
import { endTunnels, revokeTunnels } from '../access/end-tunnels.ts';
import { tellSuspended } from '../access/suspend-tunnels.ts';
import { findLiveSession } from '../identity/index.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import { claimTunnels } from '../live/ownership.ts';
import { lookUp } from '../live/replica.ts';
import type { DevicePeer } from '../live/peers.ts';
import { PostureChallenge } from '../posture/index.ts';
import { tellRelays } from '../relays/relay-list.ts';
import type { Services } from '../services.ts';
import {
  answerTime,
  chooseVersion,
  concernsAny,
  newerBundle,
  readOwnTunnels,
  readTunnelSubjects,
  registerPeer,
} from './common.ts';
import { closeAtCertificateEnd } from './certificate-end.ts';
import { askForPosture, hearPosture } from './device-posture.ts';
import { answerDevice, type DeviceRequest } from './device-requests.ts';
import { sessionFactsOf } from './device-session.ts';
import { ServerChannel } from './server-channel.ts';

export const maxDeviceMessageBytes = 65_536;

type Hello = Extract<FromDevice, { type: 'hello' }>;

/** What is called as a device comes back: once it is welcome, and once what it has lost is made good, too. */
export interface ComebackProgress {
  readonly greeted: () => void;
  readonly settled: () => void;
}

/** Serves one control channel of a device until it closes. */
export function serveDevice(
  services: Services,
  socket: WebSocket,
  dialler: ControlPeer,
  progress: ComebackProgress,
): void {
  const id = dialler.id as DeviceId;
  const logger = services.logger.child({ device: id });
  let peer: DevicePeer | undefined;
  let challenge: PostureChallenge | undefined;
  let leave: () => void = () => undefined;
  const channel = new ServerChannel<FromDevice, ToDevice>(socket, {
    from: fromDevice,
    to: toDevice,
    maxMessageBytes: maxDeviceMessageBytes,
    messagesPerSecond: 50,
    logger,
    answerTime: (nonce) => answerTime(services, nonce),
    onMessage: async (message) => {
      if (message.type === 'hello') {
        challenge = await greet(services, channel, dialler, message, (registered) => {
          peer = registered;
        });
        progress.greeted();
        const { tunnels, takeUps } = services;
        const lost = message.tunnels.filter((tunnel) => tunnels.get(tunnel)?.state === 'detached');
        leave = takeUps.whenNoted(lost, progress.settled);
        logger.info('device_online', { address: dialler.address });
      } else if (peer && message.type === 'tunnel_closed') {
        await noteClosed(services, id, message.tunnel, message.reason);
      } else if (challenge && message.type === 'posture') {
        await hearPosture(services, dialler, challenge, message.statement);
      } else if (peer && 'id' in message) {
        channel.send(await answer(services, peer, dialler, message));
      }
    },
  });
  const certificateTimer = closeAtCertificateEnd(dialler, () => {
    // Its holder has a newer one by now and dials again with it.
    channel.close(new ZtnaError('ERR_RELAY_UNAVAILABLE'));
  });
  void channel.closed.then(() => {
    clearTimeout(certificateTimer);
    leave();
    if (!peer) return;
    services.peers.removeDevice(peer);
    logger.info('device_offline');
  });
}

async function greet(
  services: Services,
  channel: ServerChannel<FromDevice, ToDevice>,
  dialler: ControlPeer,
  hello: Hello,
  onRegistered: (peer: DevicePeer) => void,
): Promise<PostureChallenge> {
  const { store, clock, peers, settings, tunnels } = services;
  const version = chooseVersion(hello.versions);
  const id = dialler.id as DeviceId;
  if (peers.devices(id).length >= settings.limits.channelsPerDevice) {
    throw new ZtnaError('ERR_LIMIT_RATE');
  }
  const row = await store.write(
    (tx) =>
      tx
        .updateTable('devices')
        .set({ lastSeenAtMs: clock.nowMs() })
        .where('id', '=', id)
        .where('state', 'in', ['enrolled', 'pending', 'disabled'])
        .returningAll()
        .executeTakeFirst(),
    { apart: id },
  );
  if (!row) throw new ZtnaError('ERR_IDENTITY_REVOKED');
  const known = (await readTunnelSubjects(services, hello.tunnels)).filter(
    (tunnel) => tunnel.device === id,
  );
  const session = await findLiveSession(store.db, id, clock.nowMs());
  const facts = session ? await sessionFactsOf(services, session, version) : null;
  const readOwn = async () => {
    const own = await readOwnTunnels(services, 'device', id);
    return (entry: RevocationEntry) =>
      concernsAny(entry, { kind: 'device', id }, [...known, ...own]);
  };
  const since = known.map(({ tunnel }) => tunnel);
  const challenge = new PostureChallenge(id, row.signingKey);
  const register = () => {
    channel.throwIfOver();
    const registered: DevicePeer = {
      id,
      address: dialler.address,
      version,
      toldTo: 0,
      send: (message) => {
        channel.send(message);
      },
      close: (error) => {
        channel.close(error);
      },
    };
    peers.addDevice(registered);
    onRegistered(registered);
    registered.send({
      type: 'welcome',
      version,
      device: id,
      bundle: newerBundle(services, hello.bundleVersion),
      session: facts,
    });
    tellRelays(services, registered);
    askForPosture(services, registered, challenge);
    return registered;
  };
  const peer = await registerPeer(services, since, readOwn, register, async () => {
    const now = await store.db
      .selectFrom('devices')
      .select('state')
      .where('id', '=', id)
      .executeTakeFirst();
    return now !== undefined && now.state !== 'revoked';
  });
  // Its leases come by this channel from here on, so this is who has to send them.
  await claimTunnels(services, hello.tunnels, { device: id });
  for (const tunnel of known) {
    const isOver = tunnel.state === 'closed' || !tunnels.get(tunnel.tunnel);
    if (isOver) {
      peer.send({
        type: 'tunnel_ended',
        tunnel: tunnel.tunnel as Hello['tunnels'][number],
        code: 'ERR_TUNNEL_CLOSED',
        reason: 'tunnel_closed',
      });
      continue;
    }
    // One without a path is decided on when it asks for the next.
    if (tunnel.state !== 'detached') services.schedule.hasten(tunnel.tunnel, clock.nowMs());
    const held = tunnels.get(tunnel.tunnel);
    if (held) tellSuspended(services, held);
    if (peer.version >= 2 && peers.connectors.get(tunnel.connector)?.isStopping === true) {
      peer.send({
        type: 'tunnel_draining',
        tunnel: tunnel.tunnel as Hello['tunnels'][number],
      });
    }
  }
  return challenge;
}

async function answer(
  services: Services,
  peer: DevicePeer,
  dialler: ControlPeer,
  request: DeviceRequest,
): Promise<ToDevice> {
  try {
    return await answerDevice(services, peer, dialler, request);
  } catch (error) {
    return refusalOf(services, request.id, error);
  }
}

/** What a person may be told of an error; everything else stays in the log. */
function refusalOf(services: Services, id: number, error: unknown): ToDevice {
  const { code, message, hint, ref, cause } = toZtnaError(error);
  if (code === 'ERR_INTERNAL') {
    services.logger.error('request_failed', {
      error: message,
      cause: cause instanceof Error ? (cause.stack ?? cause.message) : null,
    });
    return { type: 'refusal', id, code, message: null, fix: null, ref: null };
  }
  const fix = hint === undefined ? null : hint.replace(/^fix: /, '').slice(0, 500);
  return { type: 'refusal', id, code, message: message.slice(0, 500), fix, ref: ref ?? null };
}

/**
 * An agent closed its end: no more renewals, and its place in the limits is free. The connector hears of it inside the
 * tunnel, behind the last bytes; while that has no path, from the revocation log.
 */
async function noteClosed(
  services: Services,
  device: DeviceId,
  id: TunnelId,
  reason: string,
): Promise<void> {
  const tunnel = await lookUp(services, id);
  if (tunnel?.device !== device || tunnel.state === 'closed') return;

  await services.store.write((tx) => {
    const end = tunnel.state === 'detached' ? revokeTunnels : endTunnels;
    return end(services, tx, [tunnel], { reason, code: 'ERR_TUNNEL_CLOSED' });
  });
}
