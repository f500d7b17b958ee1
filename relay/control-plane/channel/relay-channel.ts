import type { WebSocket } from 'ws';
import {
  fromRelay,
  toRelay,
  ZtnaError,
  type FromRelay,
  type RelayId,
  type ToRelay,
} from '../../../protocol/index.ts';
import { endTunnels } from '../access/end-tunnels.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import type { RelayPeer } from '../live/peers.ts';
import { resumableVersion } from '../grant/resume.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import { readRelay } from '../relays/relay.ts';
import { setDraining, tellRelays } from '../relays/relay-list.ts';
import type { Services } from '../services.ts';
import { answerTime, chooseVersion, newerBundle, registerPeer } from './common.ts';
import { closeAtCertificateEnd } from './certificate-end.ts';
import { ServerChannel } from './server-channel.ts';

/** A data plane that comes back names every tunnel it carries. */
export const maxRelayMessageBytes = 4_194_304;

/** Connectors whose idle sockets one data plane may tell of. */
const maxConnectors = 16_384;

type Hello = Extract<FromRelay, { type: 'hello' }>;

/** Serves one data plane's control channel until it closes. */
export function serveRelay(services: Services, socket: WebSocket, dialler: ControlPeer): void {
  const logger = services.logger.child({ relay: dialler.id });
  let peer: RelayPeer | undefined;
  const channel = new ServerChannel<FromRelay, ToRelay>(socket, {
    from: fromRelay,
    to: toRelay,
    maxMessageBytes: maxRelayMessageBytes,
    messagesPerSecond: 2_000,
    // A data plane that is gone must be out of permits soon: everything else finds out by losing its path.
    liveness: { pingEveryMs: 1_000, deadAfterMs: 4_000 },
    logger,
    answerTime: (nonce) => answerTime(services, nonce),
    onMessage: async (message) => {
      if (message.type === 'hello') {
        await greet(services, channel, dialler, message, (registered) => {
          peer = registered;
        });
        logger.info('data_plane_online', { tunnels: message.tunnels.length });
      } else if (peer) await handle(services, peer, message);
    },
  });
  const certificateTimer = closeAtCertificateEnd(dialler, () => {
    // Its holder has a newer one by now and dials again with it.
    channel.close(new ZtnaError('ERR_RELAY_UNAVAILABLE'));
  });
  void channel.closed.then(() => {
    clearTimeout(certificateTimer);
    if (peer && services.peers.removeRelay(peer)) logger.warn('data_plane_offline');
  });
}

async function greet(
  services: Services,
  channel: ServerChannel<FromRelay, ToRelay>,
  dialler: ControlPeer,
  hello: Hello,
  onRegistered: (peer: RelayPeer) => void,
): Promise<void> {
  const { store, clock, peers } = services;
  const version = chooseVersion(hello.versions);
  const id = dialler.id as RelayId;
  const row = await store.write((tx) =>
    tx
      .updateTable('relays')
      .set({ lastSeenAtMs: clock.nowMs() })
      .where('id', '=', id)
      .where('state', '=', 'enrolled')
      .returningAll()
      .executeTakeFirst(),
  );
  if (!row) throw new ZtnaError('ERR_IDENTITY_REVOKED');
  await registerPeer(
    services,
    hello.tunnels,
    () => Promise.resolve(() => true),
    () => {
      channel.throwIfOver();
      const registered: RelayPeer = {
        id,
        url: row.url,
        address: dialler.address,
        version,
        isDraining: false,
        receiptKey: null,
        slots: new Map(),
        toldTo: 0,
        send: (message) => {
          channel.send(message);
        },
        close: (error) => {
          channel.close(error);
        },
      };
      // Without any there was no way in for the connectors either: they were not away, and now they dial anew.
      if (peers.relays.size === 0) services.absences.restart(clock.nowMs());
      peers.addRelay(registered)?.close(new ZtnaError('ERR_RELAY_UNAVAILABLE'));
      onRegistered(registered);
      const bundle = newerBundle(services, hello.bundleVersion);
      registered.send({ type: 'welcome', version, relay: id, bundle });
      tellRelays(services, registered);
      return registered;
    },
    async () => (await readRelay(store.db, id))?.state === 'enrolled',
  );
  // One that drains says so again behind its hello.
  await setDraining(services, id, false);
  const nowMs = clock.nowMs();
  for (const tunnel of hello.tunnels) services.schedule.hasten(tunnel, nowMs);
}

async function handle(
  services: Services,
  peer: RelayPeer,
  message: Exclude<FromRelay, Hello>,
): Promise<void> {
  switch (message.type) {
    case 'slots':
      // A data plane that makes up connectors fills no memory of ours.
      if (peer.slots.size >= maxConnectors && !peer.slots.has(message.connector)) {
        throw new ZtnaError('ERR_LIMIT_RATE', { reason: 'too_many_connectors' });
      }
      peer.slots.set(message.connector, { instance: message.instance, idle: message.idle });
      return;
    case 'tunnel_closed': {
      const tunnel = services.tunnels.get(message.tunnel);
      if (!tunnel || tunnel.state === 'closed') return;
      // Those that it moved away from say so as well.
      if (tunnel.version >= resumableVersion && hasBegun(tunnel, message)) return;
      if (!isOnPath(tunnel, peer.id)) {
        await refuseReport(services, peer, message);
        return;
      }
      // Sealed bytes are counted here; what reached the app is the connector's to say.
      const { code, reason } = message;
      await services.store.write((tx) => endTunnels(services, tx, [tunnel], { reason, code }));
      return;
    }
    case 'tunnel_joined': {
      const tunnel = services.tunnels.get(message.tunnel);
      if (message.generation !== tunnel?.generation) return; // a path that another has replaced
      if (tunnel.relays.includes(peer.id)) tunnel.relay = peer.id;
      else await refuseReport(services, peer, message);
      return;
    }
    case 'receipt_key':
      peer.receiptKey = message.key;
      await services.audit.append({
        actor: `relay:${peer.id}`,
        action: 'relay.receipt_key',
        subject: peer.id,
        outcome: 'ok',
        details: { key: message.key },
      });
      return;
    case 'receipt':
      if (peer.receiptKey === null) throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
      services.receipts.take(peer.id, peer.receiptKey, message.statement);
      return;
    case 'admission_refused':
      await services.refusals.record(peer.address, {
        actor: `relay:${peer.id}`,
        action: 'admission.refused',
        subject: message.peer ?? message.address,
        details: { code: message.code, reason: message.reason, address: message.address },
      });
      return;
    case 'draining':
      peer.isDraining = true;
      if (await setDraining(services, peer.id, true)) {
        services.logger.info('data_plane_draining', { relay: peer.id });
      }
      return;
    case 'time':
      return; // answered by the channel itself
  }
}

/** True for the relay that carries the newest path; where that is not known, for those that its grant names. */
function isOnPath({ relay, relays }: LiveTunnel, id: RelayId): boolean {
  return relay === null ? relays.includes(id) : relay === id;
}

/** Of a path that is not this relay's by its grant: whoever says so is broken or lies. */
async function refuseReport(
  services: Services,
  peer: RelayPeer,
  report: Extract<FromRelay, { type: 'tunnel_closed' | 'tunnel_joined' }>,
): Promise<void> {
  await services.refusals.record(peer.address, {
    actor: `relay:${peer.id}`,
    action: 'tunnel.report',
    subject: report.tunnel,
    details: { code: 'ERR_GRANT_MISMATCH', reason: 'relay_other', report: report.type },
  });
}

/** A tunnel outlives its paths, and whether it has begun is its ends' to say: bytes may have passed between them. */
function hasBegun(
  tunnel: LiveTunnel,
  path: { readonly bytesUp: number; readonly bytesDown: number },
): boolean {
  return tunnel.state !== 'granted' || tunnel.generation > 1 || path.bytesUp + path.bytesDown > 0;
}
