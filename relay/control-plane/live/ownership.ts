import {
  isId,
  ZtnaError,
  type ConnectorId,
  type DeviceId,
  type InstanceId,
  type RelayId,
  type TunnelId,
} from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import { raiseCounter, type Reader, type Tx } from '../store/index.ts';
import { readTunnels } from './load-tunnels.ts';
import { merge } from './replica.ts';
import type { LiveTunnel } from './tunnel-index.ts';

/** A control plane that was not seen for this long is dead. */
export const controlPlaneDeadMs = 5_000;

/** Tunnels of the dead that are taken over at once. */
const claimedAtOnce = 500;

/** For so long the tunnels of a dead one are left to those who have a channel with their connector. */
const courtesyMs = 3_000;

/** True where this process verifies the tunnel. */
export function isOwn(
  { self }: Pick<Services, 'self'>,
  tunnel: Pick<LiveTunnel, 'owner'>,
): boolean {
  return tunnel.owner === self.id;
}

/**
 * True once `relay remove` has taken this control plane out: nobody believes its keys from then on. Read in a transaction
 * that holds the order of revocations it is exact.
 */
export async function isRemoved(
  { store, self }: Pick<Services, 'store' | 'self'>,
  db: Reader | Tx,
): Promise<boolean> {
  if (store.engine === 'sqlite' || !isId('relay', self.id)) return false; // the first one is never removed
  const row = await db
    .selectFrom('relays')
    .select('state')
    .where('id', '=', self.id)
    .executeTakeFirst();
  return row?.state === 'removed';
}

/** Decides nothing where this control plane was removed. Throws ERR_RELAY_UNAVAILABLE. */
export async function refuseRemoved(services: Services, tx: Tx): Promise<void> {
  if (!(await isRemoved(services, tx))) return;
  services.onRemoved();
  throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { hop: 'relay', reason: 'control_plane_removed' });
}

/** A removed control plane: others take its tunnels over as soon as `tx` is durable, and hear no more of it. */
export async function disown({ store }: Services, tx: Tx, id: RelayId): Promise<void> {
  await tx.deleteFrom('controlPlanes').where('id', '=', id).execute();
  await tx.deleteFrom('connectorLinks').where('controlPlane', '=', id).execute();
  await tx.updateTable('tunnels').set({ owner: null }).where('owner', '=', id).execute();
  store.announce(tx, 'tunnels');
}

/**
 * Takes tunnels over, under a fencing number above that of whoever had them, so that from here on our renewals count and
 * theirs do not. Those that are ours, closed or of another device are left alone.
 */
export async function claimTunnels(
  services: Services,
  ids: readonly TunnelId[],
  of: { readonly device?: DeviceId } = {},
): Promise<void> {
  const { store, tunnels, self } = services;
  if (store.engine === 'sqlite') return; // there is nobody else
  const foreign = ids.filter((id) => {
    const known = tunnels.get(id);
    return !known || (known.owner !== self.id && known.state !== 'closed');
  });
  if (!(await areThere(store.db, foreign, of.device))) return; // made-up ids cost no write
  await store.write(async (tx) => {
    await store.lockShared(tx, 'revocation');
    await refuseRemoved(services, tx);
    let update = tx
      .updateTable('tunnels')
      .set({ owner: self.id, fencing: await raiseCounter(tx, 'fencing') })
      .where('id', 'in', foreign)
      .where('state', '!=', 'closed')
      .where((eb) => eb.or([eb('owner', 'is', null), eb('owner', '!=', self.id)]));
    if (of.device !== undefined) update = update.where('deviceId', '=', of.device);
    const taken = await update.returning(['id', 'fencing']).execute();
    const [first] = taken;
    if (!first) return;
    const rows = await readTunnels(services, tx, { ids: taken.map(({ id }) => id) });
    store.announce(tx, 'tunnels');
    store.afterCommit(tx, () => {
      services.sequence.raise(first.fencing);
      for (const row of rows) merge(services, row);
    });
  });
}

/** True where one of these tunnels, at least, is in the store and not over. */
async function areThere(
  db: Reader,
  ids: readonly TunnelId[],
  device: DeviceId | undefined,
): Promise<boolean> {
  if (ids.length === 0) return false;
  let query = db
    .selectFrom('tunnels')
    .select('id')
    .where('id', 'in', ids)
    .where('state', '!=', 'closed');
  if (device !== undefined) query = query.where('deviceId', '=', device);
  return (await query.limit(1).executeTakeFirst()) !== undefined;
}

/** Control planes that are alive, this one among them. */
async function readLive({ clock, self }: Services, db: Reader | Tx): Promise<Set<string>> {
  const rows = await db
    .selectFrom('controlPlanes')
    .select('id')
    .where('lastSeenAtMs', '>', clock.nowMs() - controlPlaneDeadMs)
    .execute();
  return new Set([self.id, ...rows.map(({ id }) => id)]);
}

/** True when another live control plane has a channel with the tunnel's very connector process. */
export async function isHeldElsewhere(
  services: Services,
  db: Reader | Tx,
  tunnel: Pick<LiveTunnel, 'connector' | 'instance'>,
): Promise<boolean> {
  if (services.store.engine === 'sqlite') return false;
  const row = await db
    .selectFrom('connectorLinks')
    .innerJoin('controlPlanes', 'controlPlanes.id', 'connectorLinks.controlPlane')
    .select('connectorId')
    .where('connectorId', '=', tunnel.connector)
    .where('instance', '=', tunnel.instance)
    .where('controlPlane', '!=', services.self.id)
    .where('lastSeenAtMs', '>', services.clock.nowMs() - controlPlaneDeadMs)
    .executeTakeFirst();
  return row !== undefined;
}

/** Notes that this process has a channel with a connector, or has it no more. */
export async function noteLink(
  { store, self }: Pick<Services, 'store' | 'self'>,
  tx: Tx,
  connectorId: ConnectorId,
  instance: InstanceId,
): Promise<void> {
  if (store.engine === 'sqlite') return;
  await tx
    .insertInto('connectorLinks')
    .values({ controlPlane: self.id, connectorId, instance })
    .onConflict((conflict) =>
      conflict.columns(['controlPlane', 'connectorId']).doUpdateSet({ instance }),
    )
    .execute();
}

export async function forgetLink(
  { store, self }: Pick<Services, 'store' | 'self'>,
  connectorId: ConnectorId,
  instance: InstanceId,
): Promise<void> {
  if (store.engine === 'sqlite') return;
  await store.write((tx) =>
    tx
      .deleteFrom('connectorLinks')
      .where('controlPlane', '=', self.id)
      .where('connectorId', '=', connectorId)
      .where('instance', '=', instance)
      .execute(),
  );
}

/**
 * Begins: what a former process of this control plane had is this one's, and it has no channels yet. Answers as `beat`.
 * Throws ERR_IDENTITY_REVOKED where it was removed.
 */
export async function registerSelf(services: Services): Promise<number> {
  const { store, self, sequence, clock } = services;
  const registeredAtMs = await store.write(async (tx) => {
    await store.lockShared(tx, 'revocation');
    if (await isRemoved(services, tx)) throw controlPlaneRemoved();
    const row = { fencing: sequence.fencing, lastSeenAtMs: clock.nowMs() };
    await tx
      .insertInto('controlPlanes')
      .values({ id: self.id, ...row })
      .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
      .execute();
    await tx.deleteFrom('connectorLinks').where('controlPlane', '=', self.id).execute();
    let update = tx
      .updateTable('tunnels')
      .set({ fencing: sequence.fencing, owner: self.id })
      .where('state', '!=', 'closed');
    if (store.engine === 'postgresql') {
      update = update.where((eb) => eb.or([eb('owner', '=', self.id), eb('owner', 'is', null)]));
    }
    await update.execute();
    return row.lastSeenAtMs;
  });
  for (const row of await readTunnels(services, store.db, { nowMs: clock.nowMs() })) {
    merge(services, row);
  }
  return registeredAtMs;
}

/** Ends: others take our tunnels over at once. */
export async function leave(services: Services): Promise<void> {
  const { store, self } = services;
  if (store.engine === 'sqlite') return;
  await store.write(async (tx) => {
    await tx
      .updateTable('controlPlanes')
      .set({ lastSeenAtMs: 0 })
      .where('id', '=', self.id)
      .execute();
    await tx.deleteFrom('connectorLinks').where('controlPlane', '=', self.id).execute();
    await tx.updateTable('tunnels').set({ owner: null }).where('owner', '=', self.id).execute();
    store.announce(tx, 'tunnels');
  });
}

/** Why a control plane that was removed does not run. */
export function controlPlaneRemoved(): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_REVOKED', {
    message: 'this relay was removed: its control plane decides nothing any more',
    hint: 'to use this machine again: ztna-relay invite relay on another one, then init --join with an empty --dir',
    reason: 'control_plane_removed',
  });
}

/**
 * Says that this process lives; for how long it could not is what `adoptTunnels` waits for. `lastMs` is what the beat
 * before answered: a store that does not know it any more went back. Throws ERR_RELAY_UNAVAILABLE then.
 */
export async function beat(services: Services, lastMs: number): Promise<number> {
  const { store, self, clock, sequence } = services;
  const row = { fencing: sequence.fencing, lastSeenAtMs: clock.nowMs() };
  if (store.engine === 'sqlite') return row.lastSeenAtMs;
  await store.write(async (tx) => {
    const known = await tx
      .selectFrom('controlPlanes')
      .select('lastSeenAtMs')
      .where('id', '=', self.id)
      .executeTakeFirst();
    if (!known) await refuseRemoved(services, tx);
    if ((known?.lastSeenAtMs ?? 0) < lastMs) {
      services.onWentBack();
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'store_unavailable' });
    }
    await tx.updateTable('controlPlanes').set(row).where('id', '=', self.id).execute();
  });
  return row.lastSeenAtMs;
}

/**
 * Takes over tunnels that nobody verifies, those whose connector is here first, and hands on those whose connector is
 * only elsewhere. `aliveForMs` is how long this process has reached the store without a break: after one, the others
 * must have had the time to be seen.
 */
export async function adoptTunnels(services: Services, aliveForMs: number): Promise<void> {
  const { store, peers } = services;
  if (store.engine === 'sqlite' || aliveForMs < controlPlaneDeadMs) return;
  const live = [...(await readLive(services, store.db))];
  const orphans = await store.db
    .selectFrom('tunnels')
    .leftJoin('controlPlanes', 'controlPlanes.id', 'tunnels.owner')
    .select(['tunnels.id', 'connectorId', 'instance', 'lastSeenAtMs'])
    .where('state', '!=', 'closed')
    .where((eb) => eb.or([eb('owner', 'is', null), eb('owner', 'not in', live)]))
    .limit(claimedAtOnce)
    .execute();
  const nowMs = services.clock.nowMs();
  const wanted = orphans.filter(({ connectorId, instance, lastSeenAtMs }) => {
    if (peers.connectors.get(connectorId)?.instance === instance) return true;
    return lastSeenAtMs !== null && nowMs > lastSeenAtMs + controlPlaneDeadMs + courtesyMs;
  });
  await claimTunnels(
    services,
    wanted.map(({ id }) => id),
  );
  await handOn(services, live);
}

async function handOn(services: Services, live: readonly string[]): Promise<void> {
  const { store, tunnels, peers, self } = services;
  if (live.length < 2) return;
  const stranded = [...tunnels.all()].filter(
    (tunnel) =>
      isOwn(services, tunnel) &&
      tunnel.state !== 'closed' &&
      peers.connectors.get(tunnel.connector)?.instance !== tunnel.instance,
  );
  for (const tunnel of stranded.slice(0, claimedAtOnce)) {
    if (!(await isHeldElsewhere(services, store.db, tunnel))) continue;
    await store.write(async (tx) => {
      await tx
        .updateTable('tunnels')
        .set({ owner: null })
        .where('id', '=', tunnel.id)
        .where('owner', '=', self.id)
        .execute();
      store.announce(tx, 'tunnels');
      store.afterCommit(tx, () => {
        tunnel.owner = null;
        services.schedule.delete(tunnel.id);
      });
    });
  }
}
