import {
  findRegression,
  readHighWater,
  writeHighWater,
  type HighWater,
  type Regression,
} from './high-water.ts';
import { raiseCounterTo, readCounter } from './meta.ts';
import type { Reader, Store, Tx } from './store.ts';

/** Reads how far the store has come. */
export async function readMarks(db: Reader | Tx): Promise<HighWater> {
  const incarnation = await readCounter(db, 'incarnation');
  const newest = await db
    .selectFrom('revocations')
    .select((eb) => eb.fn.max('position').as('position'))
    .where('incarnation', '=', incarnation)
    .executeTakeFirst();
  return {
    incarnation,
    position: newest?.position ?? 0,
    fencing: await readCounter(db, 'fencing'),
    controlTimeMs: await readCounter(db, 'clockHighWaterMs'),
  };
}

/**
 * Looks whether the store went back since it ran here last, and if so raises above everything that peers may remember
 * what they compare by: else they would take new revocations, leases and bundles for old. Control time does not fall
 * below the marks either, and `ensureBundle` signs anew. Answers why, or undefined for a store that is where it was left.
 * `seen` is what this process knows of the log, when it notices while it runs.
 */
export async function recoverFromRestore(
  store: Store,
  directory: string,
  seen?: Pick<HighWater, 'incarnation' | 'position'>,
): Promise<Regression | undefined> {
  const read = await readHighWater(directory);
  // A copied directory means a copied store only where the store lies in it.
  const noted = read && store.engine === 'postgresql' ? { ...read, isCopy: false } : read;
  const none = { fencing: 0, controlTimeMs: 0 };
  const kept = seen ? { marks: { ...(noted?.marks ?? none), ...seen }, isCopy: false } : noted;
  if (!findRegression(await readMarks(store.db), kept)) return undefined;
  // How often a counter was raised after the backup is not known; never more than once a second.
  const aboveAll = Math.floor(Date.now() / 1_000);
  const { marks } = kept ?? { marks: { incarnation: 0, fencing: 0, controlTimeMs: 0 } };
  return store.write(async (tx) => {
    await store.lockOrder(tx, 'revocation');
    // Another control plane may have noticed first.
    const regression = findRegression(await readMarks(tx), kept);
    if (!regression) return undefined;
    for (const counter of ['incarnation', 'fencing', 'bundleVersion', 'relaysVersion'] as const) {
      const seen = counter === 'incarnation' || counter === 'fencing' ? marks[counter] : 0;
      const highest = Math.max(await readCounter(tx, counter), seen);
      await raiseCounterTo(tx, counter, Math.max(highest + 1, aboveAll));
    }
    await raiseCounterTo(tx, 'clockHighWaterMs', marks.controlTimeMs);
    return regression;
  });
}

/** Notes beside the store how far it has come. */
export async function keepMarks(store: Store, directory: string): Promise<void> {
  await writeHighWater(directory, await readMarks(store.db));
}
