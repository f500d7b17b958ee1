import { leaseLengthMs, type FromConnector, type TunnelId } from '../../../protocol/index.ts';
import { revokeTunnels } from '../access/end-tunnels.ts';
import { maxDetachedPerDevice } from '../limits.ts';
import { isOwn } from '../live/ownership.ts';
import { lookUp } from '../live/replica.ts';
import type { ConnectorPeer } from '../live/peers.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';

type Detached = Extract<FromConnector, { type: 'tunnel_detached' }>;
type Closed = Extract<FromConnector, { type: 'tunnel_closed' }>;
type ByteCounts = Extract<FromConnector, { type: 'byte_counts' }>;
type Resumed = Extract<FromConnector, { type: 'tunnel_resumed' }>;

/** Bytes so far at the apps; a connector counts its own tunnels alone. */
export function noteByteCounts(services: Services, peer: ConnectorPeer, report: ByteCounts): void {
  const nowMs = services.clock.nowMs();
  for (const [id, up, down] of report.tunnels) {
    const tunnel = services.tunnels.get(id);
    if (tunnel?.connector !== peer.id || tunnel.instance !== peer.instance) continue;
    const { bytes, user, device, appName: app, address } = tunnel;
    const bytesOut = Math.max(0, down - bytes.down);
    const spanMs = Math.min(maxSpanMs, Math.max(0, nowMs - bytes.atMs));
    tunnel.bytes = { up, down, atMs: nowMs };
    // What passed before this process knew the tunnel was learned by another.
    const isNews = bytes.atMs !== 0 && bytesOut > 0;
    if (!isNews || !isOwn(services, tunnel)) continue;
    services.risk.note({ kind: 'bytes', user, device, app, address, bytesOut, spanMs });
  }
}

/** Bytes that were told late were not spread over longer than this. */
const maxSpanMs = 60_000;

/** A tunnel lost its path: no leases from here on, and its hold begins. */
export async function noteDetached(
  services: Services,
  peer: ConnectorPeer,
  report: Detached,
): Promise<void> {
  const tunnel = await findReported(services, peer, report);
  // A path that another has replaced is no loss.
  if (!tunnel || report.generation < tunnel.pathGeneration || tunnel.state === 'detached') return;
  const { store, clock, tunnels } = services;
  const apart = { apart: tunnel.id };
  await store.write(async (tx) => {
    if (tunnel.state === 'closed') return;
    const detachedAtMs = clock.nowMs();
    const detached = await tx
      .updateTable('tunnels')
      .set({ state: 'detached', detachedAtMs })
      .where('id', '=', tunnel.id)
      .where('state', 'in', ['granted', 'open'])
      .returning('id')
      .executeTakeFirst();
    const { generation, reason } = report;
    // Another control plane may have been told before.
    if (detached) {
      store.announce(tx, 'tunnels');
      await audit(services, tx, tunnel, 'tunnel.detach', { generation, reason });
    }
    store.afterCommit(tx, () => {
      tunnel.state = 'detached';
      tunnel.detachedAtMs = detachedAtMs;
      // No lease is due, and it is decided on when it asks for its next path; one held back waits for a decision.
      if (!tunnel.suspension) services.schedule.postpone(tunnel.id, detachedAtMs);
    });
  }, apart);
  const detached = tunnels
    .about('device', tunnel.device)
    .filter(({ state }) => state === 'detached')
    .sort((a, b) => (a.detachedAtMs ?? 0) - (b.detachedAtMs ?? 0));
  const excess = detached.slice(0, Math.max(0, detached.length - maxDetachedPerDevice));
  if (excess.length === 0) return;
  const ending = { reason: 'detached_tunnels_full', code: 'ERR_LIMIT_TUNNELS' } as const;
  await store.write((tx) => revokeTunnels(services, tx, excess, ending));
}

/** A tunnel moves on, on a path of this generation. */
export async function noteResumed(
  services: Services,
  peer: ConnectorPeer,
  report: Resumed,
): Promise<void> {
  const tunnel = await findReported(services, peer, report);
  const isKnown = tunnel && report.generation <= tunnel.generation;
  if (!isKnown || report.generation < tunnel.pathGeneration) return;
  const { store, clock, schedule } = services;
  const apart = { apart: tunnel.id };
  if (tunnel.state === 'open' && [0, report.generation].includes(tunnel.pathGeneration)) {
    tunnel.pathGeneration = report.generation; // said again, behind a welcome
    return;
  }
  await store.write(async (tx) => {
    if (tunnel.state === 'closed') return;
    const heldMs = tunnel.detachedAtMs === null ? null : clock.nowMs() - tunnel.detachedAtMs;
    const resumed = await tx
      .updateTable('tunnels')
      .set({ state: 'open', detachedAtMs: null })
      .where('id', '=', tunnel.id)
      .where('state', 'in', ['granted', 'detached'])
      .returning('id')
      .executeTakeFirst();
    const { generation } = report;
    if (resumed) store.announce(tx, 'tunnels');
    // A move that was no loss is on record once, too.
    if (resumed || isOwn(services, tunnel)) {
      await audit(services, tx, tunnel, 'tunnel.resume', { generation, heldMs });
    }
    store.afterCommit(tx, () => {
      tunnel.state = 'open';
      tunnel.detachedAtMs = null;
      tunnel.isAwaited = false;
      tunnel.pathGeneration = generation;
      services.takeUps.note(tunnel.id);
    });
  }, apart);
  // It was not renewed while it had no path, and what the grant gave it may be used up.
  const nowMs = clock.nowMs();
  if (tunnel.untilMs - nowMs < leaseLengthMs(tunnel.intervalMs) / 2) {
    schedule.hasten(tunnel.id, nowMs);
  }
}

/** Writes down what a tunnel carried. Where its end was put on record without that, one more record says it. */
export async function noteBytes(
  services: Services,
  tx: Tx,
  peer: ConnectorPeer,
  { tunnel, bytesUp, bytesDown }: Closed,
): Promise<void> {
  const row = await tx
    .selectFrom('tunnels')
    .innerJoin('users', 'users.id', 'tunnels.userId')
    .leftJoin('apps', 'apps.id', 'tunnels.appId')
    .select(['state', 'bytesUp', 'bytesDown', 'decisionId'])
    .select(['users.name as user', 'apps.name as app'])
    .where('tunnels.id', '=', tunnel)
    .where('connectorId', '=', peer.id)
    .executeTakeFirst();
  if (!row) return;
  await tx.updateTable('tunnels').set({ bytesUp, bytesDown }).where('id', '=', tunnel).execute();
  // Once for a tunnel, whatever is told of it again.
  const isFirst = row.bytesUp === 0 && row.bytesDown === 0 && bytesUp + bytesDown > 0;
  if (row.state !== 'closed' || !isFirst) return;
  const { user, app, decisionId: ref } = row;
  const details = { bytesUp, bytesDown };
  const actor = `connector:${peer.id}`;
  await services.audit.append(
    { actor, action: 'tunnel.bytes', subject: tunnel, outcome: 'ok', ref, user, app, details },
    tx,
  );
}

/** Has a connector let go of a tunnel that is over here: an entry ends it at once, a missing lease in a while. */
export async function dropTunnel(services: Services, tx: Tx, id: TunnelId): Promise<void> {
  const subject = { kind: 'tunnel', id } as const;
  await services.revocations.append(tx, { action: 'revoke', subject, reason: 'tunnel_closed' });
}

/** The tunnel that a connector reports on, if it is its own. One that is over here ends there as well. */
async function findReported(
  services: Services,
  peer: ConnectorPeer,
  report: Detached | Resumed,
): Promise<LiveTunnel | undefined> {
  const { store } = services;
  const tunnel = await lookUp(services, report.tunnel);
  if (tunnel && tunnel.state !== 'closed') {
    return tunnel.connector === peer.id && tunnel.instance === peer.instance ? tunnel : undefined;
  }
  const row = await store.db
    .selectFrom('tunnels')
    .select('connectorId')
    .where('id', '=', report.tunnel)
    .executeTakeFirst();
  const { reportThrottle, clock } = services;
  // Said over and over, it is written down no more: the lease ends the tunnel.
  if (row?.connectorId === peer.id && reportThrottle.take(peer.id, clock.nowMs())) {
    await store.write((tx) => dropTunnel(services, tx, report.tunnel));
  }
  return undefined;
}

async function audit(
  services: Services,
  tx: Tx,
  tunnel: LiveTunnel,
  action: 'tunnel.detach' | 'tunnel.resume',
  details: Record<string, unknown>,
): Promise<void> {
  await services.audit.append(
    {
      actor: `connector:${tunnel.connector}`,
      action,
      subject: tunnel.id,
      outcome: 'ok',
      ref: tunnel.decision,
      user: tunnel.userName,
      app: tunnel.appName,
      details,
    },
    tx,
  );
}
