import { sql } from 'kysely';
import { ZtnaError } from '../../../protocol/index.ts';
import type { Reader, Tx } from './store.ts';

/** Numbers that are the deployment's own, not of one table. */
export type Counter =
  | 'incarnation' // of the revocation log; raised by a restore
  | 'fencing' // who owns a tunnel; raised at every take-over
  | 'bundleVersion'
  | 'relaysVersion' // of the signed list of relays
  | 'clockHighWaterMs'; // control time never falls below it

/** The counter's value; 0 before the first write. */
export async function readCounter(db: Reader | Tx, counter: Counter): Promise<number> {
  const text = await readMeta(db, counter);
  const value = text === undefined ? 0 : Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new ZtnaError('ERR_INTERNAL', { message: `the store's ${counter} is not a number` });
  }
  return value;
}

/** Raises the counter by one and answers the new value. */
export async function raiseCounter(tx: Tx, counter: Counter): Promise<number> {
  const row = await tx
    .insertInto('meta')
    .values({ key: counter, value: '1' })
    .onConflict((conflict) =>
      conflict.column('key').doUpdateSet({
        value: sql<string>`cast(cast(meta.value as bigint) + 1 as text)`,
      }),
    )
    .returning('value')
    .executeTakeFirstOrThrow();
  return Number(row.value);
}

/** Sets the counter, unless it is higher already. Counters never fall. */
export async function raiseCounterTo(tx: Tx, counter: Counter, value: number): Promise<void> {
  await tx
    .insertInto('meta')
    .values({ key: counter, value: String(value) })
    .onConflict((conflict) =>
      conflict
        .column('key')
        .doUpdateSet({ value: String(value) })
        .where(sql<boolean>`cast(meta.value as bigint) < cast(excluded.value as bigint)`),
    )
    .execute();
}

/** A text kept under `key`, or undefined. */
export async function readMeta(db: Reader | Tx, key: string): Promise<string | undefined> {
  const row = await db.selectFrom('meta').select('value').where('key', '=', key).executeTakeFirst();
  return row?.value;
}

export async function writeMeta(tx: Tx, key: string, value: string): Promise<void> {
  await tx
    .insertInto('meta')
    .values({ key, value })
    .onConflict((conflict) => conflict.column('key').doUpdateSet({ value }))
    .execute();
}
