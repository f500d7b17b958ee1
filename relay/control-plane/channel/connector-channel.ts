import type { WebSocket } from 'ws';
import {
  fromConnector,
  toConnector,
  toZtnaError,
  ZtnaError,
  type ConnectorId,
  type FromConnector,
  type InstanceId,
  type RevocationEntry,
  type ToConnector,
  type TunnelId,
} from '../../../protocol/index.ts';
import { endTunnels } from '../access/end-tunnels.ts';
import {
  dropTunnel,
  noteByteCounts,
  noteBytes,
  noteDetached,
  noteResumed,
} from './tunnel-reports.ts';
import { forgetLink, isOwn, noteLink } from '../live/ownership.ts';
import { lookUp } from '../live/replica.ts';
import type { ConnectorPeer } from '../live/peers.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import { tellRelays } from '../relays/relay-list.ts';
import type { Services } from '../services.ts';
import type { Connector, Tx } from '../store/index.ts';
import { readAppIds } from './connector-apps.ts';
import {
  answerTime,
  chooseVersion,
  concernsAny,
  newerBundle,
  readOwnTunnels,
  readTunnelSubjects,
  registerPeer,
} from './common.ts';
import { ServerChannel } from './server-channel.ts';

/** A connector that comes back with every tunnel it may carry names them all in its hello. */
export const maxConnectorMessageBytes = 262_144;

/** Data WebSockets that a connector keeps dialled ahead on each relay. */
const slotsAhead = 4;

type Hello = Extract<FromConnector, { type: 'hello' }>;

/** Serves one connector's control channel until it closes. */
export function serveConnector(services: Services, socket: WebSocket, dialler: ControlPeer): void {
  const id = dialler.id as ConnectorId;
  const logger = services.logger.child({ connector: id });
  let peer: ConnectorPeer | undefined;
  const channel = new ServerChannel<FromConnector, ToConnector>(socket, {
    from: fromConnector,
    to: toConnector,
    maxMessageBytes: maxConnectorMessageBytes,
    // One that comes back tells of each of its tunnels at once.
    messagesPerSecond: 2_500,
    logger,
    answerTime: (nonce) => answerTime(services, nonce),
    onMessage: async (message) => {
      if (message.type === 'hello') {
        await greet(services, channel, dialler, message, (registered) => {
          peer = registered;
        });
        logger.info('connector_online', { instance: message.instance, apps: message.apps.length });
      } else if (peer) await handle(services, peer, message);
    },
    laneOf: (message) => ('tunnel' in message ? message.tunnel : undefined),
  });
  const certificateTimer = closeAtCertificateEnd(dialler, () => {
    // Its holder has a newer one by now and dials again with it.
    channel.close(new ZtnaError('ERR_RELAY_UNAVAILABLE'));
  });
  void channel.closed.then((how) => {
    clearTimeout(certificateTimer);
    if (!peer || !services.peers.removeConnector(peer)) return;
    logger.info('connector_offline', { how });
    services.absences.leave(peer.id, services.clock.nowMs(), how);
    // What cannot be written down ends with our own lease.
    forgetLink(services, peer.id, peer.instance).catch(() => undefined);
  });
}

/** Live sockets end with the certificate that opened them. */
export function closeAtCertificateEnd(
  dialler: Pick<ControlPeer, 'certificateUntilMs'>,
  close: () => void,
): NodeJS.Timeout {
  const leftMs = dialler.certificateUntilMs - Date.now();
  return setTimeout(close, Math.min(Math.max(leftMs, 0), 2_147_483_647));
}

async function greet(
  services: Services,
  channel: ServerChannel<FromConnector, ToConnector>,
  dialler: ControlPeer,
  hello: Hello,
  onRegistered: (peer: ConnectorPeer) => void,
): Promise<void> {
  const { store, peers } = services;
  const version = chooseVersion(hello.versions);
  const id = dialler.id as ConnectorId;
  const row = await store.write((tx) => takeInstance(services, tx, id, hello.instance));
  // Whatever else it names is no business of its own.
  const known = (await readTunnelSubjects(services, hello.tunnels)).filter(
    (tunnel) => tunnel.connector === id,
  );
  const appIds = await readAppIds(store.db, row.siteId);
  const relays = await readRelays(services);
  const readOwn = async () => {
    const own = await readOwnTunnels(services, 'connector', id);
    return (entry: RevocationEntry) =>
      concernsAny(entry, { kind: 'connector', id }, [...known, ...own]);
  };
  const since = known.map(({ tunnel }) => tunnel);
  let isDuplicate = false as boolean;
  const register = () => {
    channel.throwIfOver();
    if (!peers.isNewest(id, hello.instance)) throw new ZtnaError('ERR_CONNECTOR_REPLACED');
    const registered: ConnectorPeer = {
      id,
      name: row.name,
      site: row.siteId,
      instance: hello.instance,
      address: dialler.address,
      version,
      apps: new Set(hello.apps),
      unhealthy: new Set(),
      signingKey: row.signingKey,
      isStopping: false,
      roundTrips: new Map(),
      toldTo: 0,
      send: (message) => {
        channel.send(message);
      },
      close: (error) => {
        channel.close(error);
      },
    };
    const older = peers.addConnector(registered);
    services.absences.comeBack(id);
    onRegistered(registered);
    isDuplicate = older !== undefined && older.instance !== hello.instance;
    older?.close(new ZtnaError(isDuplicate ? 'ERR_CONNECTOR_REPLACED' : 'ERR_RELAY_UNAVAILABLE'));
    registered.send({
      type: 'welcome',
      version,
      connector: id,
      name: row.name,
      bundle: newerBundle(services, hello.bundleVersion),
      appIds,
      relays,
      slots: slotsAhead,
    });
    tellRelays(services, registered);
    return registered;
  };
  const peer = await registerPeer(services, since, readOwn, register, async () => {
    const now = await store.db
      .selectFrom('connectors')
      .select('state')
      .where('id', '=', id)
      .executeTakeFirst();
    return now?.state === 'enrolled';
  });
  if (isDuplicate) await reportDuplicate(services, peer);
  await reconcile(services, peer, hello.tunnels, known);
}

/** Processes remembered of each connector that a newer one has replaced. */
const maxReplaced = 64;

/**
 * Makes this process the one that counts of the connector. One that a newer process has replaced stays out for good,
 * however long it was frozen or cut off meanwhile. Throws ERR_CONNECTOR_REPLACED or ERR_IDENTITY_REVOKED.
 */
async function takeInstance(
  services: Services,
  tx: Tx,
  id: ConnectorId,
  instance: InstanceId,
): Promise<Connector> {
  const known = await tx
    .selectFrom('connectors')
    .selectAll()
    .where('id', '=', id)
    .where('state', '=', 'enrolled')
    .executeTakeFirst();
  if (!known) throw new ZtnaError('ERR_IDENTITY_REVOKED');
  let replaced = JSON.parse(known.replacedJson) as InstanceId[];
  if (replaced.includes(instance)) throw new ZtnaError('ERR_CONNECTOR_REPLACED');
  if (known.instance !== null && known.instance !== instance) {
    replaced = [...replaced, known.instance].slice(-maxReplaced);
  }
  const change = {
    instance,
    replacedJson: JSON.stringify(replaced),
    lastSeenAtMs: services.clock.nowMs(),
  };
  await tx.updateTable('connectors').set(change).where('id', '=', id).execute();
  await noteLink(services, tx, id, instance);
  services.store.afterCommit(tx, () => {
    services.peers.noteNewest(id, instance);
  });
  return { ...known, ...change };
}

/** The newest process counts; that another was here at the same time may mean a copied key. */
async function reportDuplicate(services: Services, peer: ConnectorPeer): Promise<void> {
  services.logger.warn('connector_replaced', { connector: peer.id, instance: peer.instance });
  await services.audit.append({
    actor: `connector:${peer.id}`,
    action: 'connector.replace',
    subject: peer.id,
    outcome: 'ok',
    details: { instance: peer.instance, address: peer.address },
  });
}

async function readRelays(services: Services) {
  return services.store.db
    .selectFrom('relays')
    .select(['id', 'url'])
    .where('state', '=', 'enrolled')
    .orderBy('id')
    .execute();
}

/** Brings store, index and connector to one view of which tunnels there are. */
async function reconcile(
  services: Services,
  peer: ConnectorPeer,
  reported: readonly TunnelId[],
  known: readonly { readonly tunnel: string; readonly state: string }[],
): Promise<void> {
  const { store, tunnels, schedule, clock } = services;
  const there = new Set<string>(reported);
  const gone = tunnels
    .about('connector', peer.id)
    .filter(
      (tunnel) =>
        tunnel.instance !== peer.instance ||
        (tunnel.state !== 'granted' && !there.has(tunnel.id) && !mayBeNew(services, tunnel)),
    );
  // Closed here but open there: an entry ends it at once, where a missing lease would only in a while.
  const closed = known.filter(
    (row) => row.state === 'closed' || tunnels.get(row.tunnel)?.state === 'closed',
  );
  if (gone.length > 0 || closed.length > 0) {
    await store.write(async (tx) => {
      await endTunnels(services, tx, gone, {
        reason: 'connector_restarted',
        code: 'ERR_CONNECTOR_OFFLINE',
      });
      for (const row of closed) await dropTunnel(services, tx, row.tunnel as TunnelId);
    });
  }
  for (const id of reported) {
    const tunnel = tunnels.get(id);
    if (!tunnel || tunnel.state === 'closed' || tunnel.connector !== peer.id) continue;
    await noteOpened(services, id);
    schedule.hasten(id, clock.nowMs() + reportsWithinMs);
  }
}

/** Which of its tunnels have no path, and need no lease, a connector says right behind its hello. */
const reportsWithinMs = 1_000;

/** Opened, on another control plane's word, perhaps after the connector had begun its hello. */
function mayBeNew(services: Services, tunnel: LiveTunnel): boolean {
  return !isOwn(services, tunnel) && services.clock.nowMs() < tunnel.grantExpiresAtMs + newMs;
}

const newMs = 10_000;

async function handle(
  services: Services,
  peer: ConnectorPeer,
  message: Exclude<FromConnector, Hello>,
): Promise<void> {
  const { tunnels, schedule, clock } = services;
  switch (message.type) {
    case 'apps':
      peer.apps = new Set(message.apps);
      return;
    case 'tunnel_opened': {
      const tunnel = await lookUp(services, message.tunnel);
      if (tunnel?.connector !== peer.id) return;
      if (tunnel.state === 'closed') {
        await refuseOpened(services, tunnel);
        return;
      }
      await noteOpened(services, message.tunnel);
      schedule.hasten(message.tunnel, clock.nowMs());
      if (peer.isStopping) tellDraining(services, tunnel);
      return;
    }
    case 'tunnel_closed': {
      const { bytesUp, bytesDown, reason, code } = message;
      await lookUp(services, message.tunnel);
      if ((await ownerOf(services, message.tunnel)) !== peer.id) return;
      await services.store.write(async (tx) => {
        // The data plane may have told of the end before; only the connector knows what reached the app.
        await noteBytes(services, tx, peer, message);
        const tunnel = tunnels.get(message.tunnel);
        if (tunnel?.connector !== peer.id || tunnel.state === 'closed') return;
        await endTunnels(services, tx, [tunnel], { reason, code }, { bytesUp, bytesDown });
      });
      return;
    }
    case 'grant_refused': {
      const tunnel = await lookUp(services, message.tunnel);
      const isOurs = tunnel?.connector === peer.id;
      await services.refusals.record(peer.address, {
        actor: `connector:${peer.id}`,
        action: 'grant.refused',
        subject: message.tunnel,
        ref: isOurs ? tunnel.decision : null,
        user: isOurs ? tunnel.userName : null,
        app: isOurs ? tunnel.appName : null,
        details: { code: message.code, reason: message.reason },
      });
      return;
    }
    case 'app_health':
      peer.unhealthy = new Set(
        message.apps.filter(([, isHealthy]) => !isHealthy).map(([name]) => name),
      );
      return;
    case 'stopping':
      peer.isStopping = true;
      services.logger.info('connector_stopping', { connector: peer.id });
      for (const tunnel of tunnels.about('connector', peer.id)) tellDraining(services, tunnel);
      return;
    case 'receipt':
      services.receipts.take(peer.id, peer.signingKey, message.statement);
      return;
    case 'byte_counts':
      noteByteCounts(services, peer, message);
      return;
    case 'tunnel_detached':
      await noteDetached(services, peer, message);
      return;
    case 'tunnel_resumed':
      await noteResumed(services, peer, message);
      return;
    case 'round_trips':
      peer.roundTrips = new Map(message.relays);
      return;
    case 'time':
      return; // answered by the channel itself
  }
}

/** The connector of a tunnel that is or was. */
async function ownerOf({ store }: Services, id: TunnelId): Promise<ConnectorId | undefined> {
  const row = await store.db
    .selectFrom('tunnels')
    .select('connectorId')
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.connectorId;
}

/** Tells its agent that new connections belong in another tunnel. */
function tellDraining(services: Services, tunnel: LiveTunnel): void {
  for (const device of services.peers.devices(tunnel.device)) {
    if (device.version >= 2) device.send({ type: 'tunnel_draining', tunnel: tunnel.id });
  }
}

/** Its agent gave the grant up and used it all the same, or it was lost on the way: no tunnel runs unrecorded. */
async function refuseOpened(services: Services, tunnel: LiveTunnel): Promise<void> {
  const { store, audit, reportThrottle, clock } = services;
  if (!reportThrottle.take(tunnel.connector, clock.nowMs())) return; // its lease ends it
  await store.write(async (tx) => {
    await dropTunnel(services, tx, tunnel.id);
    await audit.append(
      {
        actor: `connector:${tunnel.connector}`,
        action: 'tunnel.open',
        subject: tunnel.id,
        outcome: 'refused',
        ref: tunnel.decision,
        user: tunnel.userName,
        app: tunnel.appName,
        details: { reason: 'tunnel_closed' },
      },
      tx,
    );
  });
}

async function noteOpened(services: Services, id: TunnelId): Promise<void> {
  const { store, clock, audit, tunnels } = services;
  const tunnel = tunnels.get(id);
  if (tunnel?.state !== 'granted') return;
  tunnel.state = 'open';
  tunnel.pathGeneration = 1;
  try {
    await store.write(
      async (tx) => {
        const opened = await tx
          .updateTable('tunnels')
          .set({ state: 'open', openedAtMs: clock.nowMs() })
          .where('id', '=', id)
          .where('state', '=', 'granted')
          .returning('id')
          .executeTakeFirst();
        if (!opened) return; // another control plane was told before
        store.announce(tx, 'tunnels');
        await audit.append(
          {
            actor: `connector:${tunnel.connector}`,
            action: 'tunnel.open',
            subject: id,
            outcome: 'ok',
            ref: tunnel.decision,
            user: tunnel.userName,
            app: tunnel.appName,
          },
          tx,
        );
      },
      { apart: id },
    );
  } catch (error) {
    services.logger.error('tunnel_open_not_recorded', { code: toZtnaError(error).code });
  }
}
