import { refreshBundle } from '../enrolment/bundle.ts';
import { checkPolicies, PolicyEngine, readPolicy } from '../policy/index.ts';
import { refreshRelayList } from '../relays/relay-list.ts';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { Reader, Topic, Tx } from '../store/index.ts';
import { isRemoved } from './ownership.ts';
import { syncTunnels } from './replica.ts';

/**
 * The policy that is active in the store as `db` sees it, which another control plane may have replaced. Whoever decides
 * in a transaction decides by what this answers: `services.policy` may be what was read a moment before.
 */
export async function refreshPolicy(services: Services, db: Reader | Tx): Promise<PolicyEngine> {
  const { store, policy } = services;
  if (store.engine === 'sqlite') return policy;
  const newest = await db
    .selectFrom('policies')
    .select((eb) => eb.fn.max('version').as('version'))
    .executeTakeFirst();
  // Lower, too: the store may have been restored.
  if ((newest?.version ?? 0) === policy.version) return policy;
  const active = await readPolicy(db);
  const { extraChecks } = policy;
  const engine = new PolicyEngine({ extraChecks });
  if (active) engine.activate(await checkPolicies(active.files, { extraChecks }), active.version);
  const isLate = services.policy !== policy && services.policy.version > engine.version;
  if (!isLate) services.policy = engine;
  return engine;
}

/** Follows what other control planes do on the same store. Answers how to stop. */
export function followOthers(services: Services): () => Promise<void> {
  const { store, feed, logger } = services;
  let isWanted = false;
  let running: Promise<void> | undefined;
  const run = async () => {
    while (isWanted) {
      isWanted = false;
      try {
        if (await isRemoved(services, store.db)) services.onRemoved();
        await feed.wake();
        await refreshPolicy(services, store.db);
        await refreshBundle(services);
        await refreshRelayList(services);
        await syncTunnels(services);
        await closeRevoked(services);
      } catch (error) {
        const { code, reason, message } = toZtnaError(error);
        if (reason !== 'store_unavailable') logger.error('follow_failed', { code, error: message });
      }
    }
  };
  const stop = store.onAnnounced((topic) => {
    hasten(services, topic);
    isWanted = true;
    running ??= run().finally(() => {
      running = undefined;
    });
  });
  return async () => {
    stop();
    await running;
  };
}

/** Something that permission rests on was changed elsewhere: its known end may have moved. */
function hasten({ tunnels, schedule, clock }: Services, topic: Topic | null): void {
  if (!topic?.startsWith('verify')) return;
  const nowMs = clock.nowMs();
  const [, id] = topic.split(':');
  if (id !== undefined) schedule.hasten(id, nowMs);
  else for (const tunnel of tunnels.all()) schedule.hasten(tunnel.id, nowMs);
}

/** Cuts off whoever was revoked elsewhere, or replaced by a newer process there, and still has a channel here. */
async function closeRevoked({ store, peers }: Services): Promise<void> {
  const devices = [...peers.allDevices()];
  const connectors = [...peers.connectors.values()];
  const relays = [...peers.relays.values()];
  const alive = new Set<string>();
  for (let at = 0; at < devices.length; at += idsAtOnce) {
    const ids = devices.slice(at, at + idsAtOnce).map(({ id }) => id);
    const rows = await store.db
      .selectFrom('devices')
      .select('id')
      .where('id', 'in', ids)
      .where('state', '!=', 'revoked')
      .execute();
    for (const { id } of rows) alive.add(id);
  }
  const rows = await store.db
    .selectFrom('connectors')
    .select(['id', 'instance'])
    .where('state', '=', 'enrolled')
    .execute();
  const listed = await store.db
    .selectFrom('relays')
    .select('id')
    .where('state', '=', 'enrolled')
    .execute();
  for (const { id } of [...rows, ...listed]) alive.add(id);
  const newest = new Map(rows.map(({ id, instance }) => [id, instance]));
  for (const peer of connectors) {
    if (alive.has(peer.id) && newest.get(peer.id) !== peer.instance) {
      peer.close(new ZtnaError('ERR_CONNECTOR_REPLACED'));
    }
  }
  for (const peer of [...devices, ...connectors, ...relays]) {
    if (!alive.has(peer.id)) peer.close(new ZtnaError('ERR_IDENTITY_REVOKED'));
  }
}

/** Ids looked for in one query. */
const idsAtOnce = 500;
