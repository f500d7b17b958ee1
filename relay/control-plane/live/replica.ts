import { forget } from '../access/end-tunnels.ts';
import type { TunnelId } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';
import type { tunnelColumns } from './audience.ts';
import { readTunnels } from './load-tunnels.ts';
import type { LiveTunnel } from './tunnel-index.ts';

/** Rows read in one query. */
const rowsAtOnce = 500;

/**
 * The live tunnels about a subject, whichever control plane verifies them; kind `all` for every one. Nobody is granted
 * another while `tx` lasts, so that a change which is made in it misses none.
 */
export async function knowTunnels(
  services: Services,
  tx: Tx,
  kind: keyof typeof tunnelColumns | 'all',
  id = '',
): Promise<LiveTunnel[]> {
  const { store, tunnels, clock } = services;
  await store.lockOrder(tx, 'revocation');
  if (store.engine === 'sqlite') {
    return kind === 'all'
      ? [...tunnels.all()].filter(({ state }) => state !== 'closed')
      : tunnels.about(kind, id);
  }
  const rows = await readTunnels(
    services,
    tx,
    kind === 'all' ? { nowMs: clock.nowMs() } : { kind, id },
  );
  const known = rows.map((row) => merge(services, row));
  return known.filter(({ state }) => state !== 'closed');
}

/** A tunnel that another control plane may have granted a moment ago. */
export async function lookUp(services: Services, id: TunnelId): Promise<LiveTunnel | undefined> {
  const { store, tunnels } = services;
  if (!tunnels.get(id) && store.engine !== 'sqlite') {
    const row = await store.db
      .selectFrom('tunnels')
      .select('id')
      .where('id', '=', id)
      .executeTakeFirst();
    if (!row) return undefined; // whoever makes ids up causes no write
    await store.write((tx) => learn(services, tx, [id]));
  }
  return tunnels.get(id);
}

/** Brings what this process keeps of a tunnel to what the store says of it. */
export function merge(services: Services, row: LiveTunnel): LiveTunnel {
  const { tunnels, schedule, clock, self, peers } = services;
  const known = tunnels.get(row.id);
  if (!known) tunnels.add(row);
  const tunnel = known ?? row;
  if (known && known.state !== 'closed') {
    tunnels.moveSession(known, row.session);
    const { generation, grantExpiresAtMs, detachedAtMs, relay, relays, owner, decision } = row;
    known.suspension = row.suspension;
    // That it was opened may be known here before it is written down, and is never undone.
    const state = row.state === 'granted' ? known.state : row.state;
    Object.assign(known, { state, generation, grantExpiresAtMs, detachedAtMs, owner });
    Object.assign(known, { relay, relays });
    // What it was decided by elsewhere is not known here: the next verification writes its own down.
    if (known.decision !== decision) {
      Object.assign(known, { decision, inputDigest: row.inputDigest, confirmations: 0 });
      known.policyVersion = row.policyVersion;
    }
  }
  if (tunnel.state === 'closed' || tunnel.owner !== self.id) schedule.delete(tunnel.id);
  else if (!schedule.has(tunnel.id)) {
    const nowMs = clock.nowMs();
    schedule.set(tunnel.id, tunnel.intervalMs, Infinity, nowMs, tunnel.device);
    // Before anybody is here nobody could be told: data planes and connectors name theirs as they come.
    if (peers.relays.size > 0 || peers.connectors.size > 0) schedule.hasten(tunnel.id, nowMs);
  }
  return tunnel;
}

/**
 * Learns of all that other control planes did to tunnels: granted, resumed, taken over, ended. In a transaction, so
 * that nothing which this process writes comes in between.
 */
export async function syncTunnels(services: Services): Promise<void> {
  const { store, tunnels, clock } = services;
  await store.write(async (tx) => {
    const nowMs = clock.nowMs();
    const rows = await tx
      .selectFrom('tunnels')
      .select(['id', 'state', 'generation', 'sessionId', 'owner', 'decisionId'])
      .where((eb) => eb.or([eb('state', '!=', 'closed'), eb('grantExpiresAtMs', '>', nowMs)]))
      .execute();
    const there = new Set<string>();
    const changed: TunnelId[] = [];
    for (const row of rows) {
      there.add(row.id);
      const known = tunnels.get(row.id);
      const isSame =
        (known?.state === row.state || (known && row.state === 'granted')) &&
        known.generation === row.generation &&
        known.session === row.sessionId &&
        known.owner === row.owner &&
        known.decision === row.decisionId;
      if (!isSame) changed.push(row.id);
    }
    for (const tunnel of tunnels.all()) {
      if (tunnel.state !== 'closed' && !there.has(tunnel.id)) changed.push(tunnel.id);
    }
    for (let at = 0; at < changed.length; at += rowsAtOnce) {
      await learn(services, tx, changed.slice(at, at + rowsAtOnce));
    }
  });
}

async function learn(services: Services, tx: Tx, ids: readonly TunnelId[]): Promise<void> {
  const endings = await tx
    .selectFrom('tunnels')
    .select(['id', 'closeReason', 'closeCode'])
    .where('id', 'in', ids)
    .where('state', '=', 'closed')
    .execute();
  const endingOf = new Map(endings.map((row) => [row.id, row]));
  const rows = await readTunnels(services, tx, { ids });
  for (const row of rows) {
    const wasLive = services.tunnels.get(row.id)?.state !== 'closed';
    const ending = endingOf.get(row.id);
    const known = ending && services.tunnels.get(row.id);
    if (!ending) merge(services, row);
    else if (!known) services.tunnels.add(row);
    else if (wasLive) {
      forget(services, known, {
        reason: ending.closeReason ?? 'tunnel_closed',
        code: ending.closeCode ?? 'ERR_TUNNEL_CLOSED',
      });
    }
  }
  // A store that was restored may not have them at all.
  const found = new Set<string>(rows.map(({ id }) => id));
  for (const id of ids) {
    const known = found.has(id) ? undefined : services.tunnels.get(id);
    if (!known || known.state === 'closed') continue;
    forget(services, known, { reason: 'tunnel_closed', code: 'ERR_TUNNEL_CLOSED' });
  }
}
