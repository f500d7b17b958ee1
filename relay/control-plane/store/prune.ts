import { historyKeptMs, maxPrunedAtOnce, revocationsKeptMs } from '../limits.ts';
import { readCounter } from './meta.ts';
import type { Store, Tx } from './store.ts';

/** Rows that were forgotten. */
export interface Pruned {
  readonly decisions: number;
  readonly tunnels: number;
  readonly revocations: number;
}

/**
 * Forgets what is too old to matter, in short transactions: decisions and tunnels that no open tunnel is about, and
 * revocations that no living grant or lease can be from before. The newest revocation stays, whatever its age: positions
 * never go back. `batch` is how many rows go at once.
 */
export async function pruneStore(
  store: Store,
  nowMs: number,
  batch = maxPrunedAtOnce,
): Promise<Pruned> {
  const all = async (prune: (tx: Tx) => Promise<readonly unknown[]>): Promise<number> => {
    let count = 0;
    for (;;) {
      const gone = await store.write(prune);
      count += gone.length;
      if (gone.length < batch) return count;
    }
  };
  const historyMs = nowMs - historyKeptMs;
  return {
    decisions: await all((tx) => pruneDecisions(tx, historyMs, batch)),
    tunnels: await all((tx) => pruneTunnels(tx, historyMs, batch)),
    revocations: await all((tx) => pruneRevocations(tx, nowMs - revocationsKeptMs, batch)),
  };
}

function pruneDecisions(tx: Tx, beforeMs: number, limit: number) {
  const open = tx.selectFrom('tunnels').where('state', '!=', 'closed');
  const old = tx
    .selectFrom('decisions')
    .select('id')
    .where('decidedAtMs', '<', beforeMs)
    .where('lastConfirmedAtMs', '<', beforeMs)
    .where('id', 'not in', open.select('decisionId'))
    .where((eb) => eb.or([eb('tunnelId', 'is', null), eb('tunnelId', 'not in', open.select('id'))]))
    .limit(limit);
  return tx.deleteFrom('decisions').where('id', 'in', old).returning('id').execute();
}

function pruneTunnels(tx: Tx, beforeMs: number, limit: number) {
  const old = tx
    .selectFrom('tunnels')
    .select('id')
    .where('state', '=', 'closed')
    .where('createdAtMs', '<', beforeMs)
    .where('closedAtMs', '<', beforeMs)
    .limit(limit);
  return tx.deleteFrom('tunnels').where('id', 'in', old).returning('id').execute();
}

async function pruneRevocations(tx: Tx, beforeMs: number, limit: number) {
  const incarnation = await readCounter(tx, 'incarnation');
  const newest = await tx
    .selectFrom('revocations')
    .select((eb) => eb.fn.max('position').as('position'))
    .where('incarnation', '=', incarnation)
    .executeTakeFirst();
  const old = await tx
    .selectFrom('revocations')
    .select(['incarnation', 'position'])
    .where('atMs', '<', beforeMs)
    .where((eb) =>
      eb.or([
        eb('incarnation', '<', incarnation),
        eb('position', '<', newest?.position ?? 0), // 0: there is none
      ]),
    )
    .orderBy('incarnation')
    .orderBy('position')
    .limit(limit)
    .execute();
  for (const row of old) {
    await tx
      .deleteFrom('revocations')
      .where('incarnation', '=', row.incarnation)
      .where('position', '=', row.position)
      .execute();
  }
  return old;
}
