import { ZtnaError } from '../../../protocol/index.ts';
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
 */
export async function recoverFromRestore(
  store: Store,
  directory: string,
): Promise<Regression | undefined> {
  const read = await readHighWater(directory);
  // A copied directory means a copied store only where the store lies in it.
  const kept = read && store.engine === 'postgresql' ? { ...read, isCopy: false } : read;
  if (!findRegression(await readMarks(store.db), kept)) return undefined;
  return store.write(async (tx) => {
    await store.lockOrder(tx, 'revocation');
    // Another control plane may have noticed first.
    const regression = findRegression(await readMarks(tx), kept);
    if (!regression) return undefined;
    await raiseAboveAll(tx, kept?.marks ?? noMarks);
    return regression;
  });
}

/**
 * The same while this process runs, and has seen what no other cause explains. `incarnation` is the highest that it knows.
 * Answers false where another control plane has done it already. Throws ERR_RELAY_UNAVAILABLE while the store is not whole.
 */
export async function recoverWhileRunning(
  store: Store,
  directory: string,
  incarnation: number,
): Promise<boolean> {
  const kept = await readHighWater(directory);
  const marks = kept?.marks ?? noMarks;
  return store.write(async (tx) => {
    await store.lockOrder(tx, 'revocation');
    const stored = await readMarks(tx);
    if (stored.incarnation === 0) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'store_unavailable' });
    }
    if (stored.incarnation > incarnation) return false;
    await raiseAboveAll(tx, { ...marks, incarnation: Math.max(marks.incarnation, incarnation) });
    return true;
  });
}

const noMarks: HighWater = { incarnation: 0, position: 0, fencing: 0, controlTimeMs: 0 };

/** Raises every counter by which machines that stayed up tell new from old. */
async function raiseAboveAll(tx: Tx, marks: HighWater): Promise<void> {
  // How often a counter was raised after the backup is not known; never more than once a second.
  const aboveAll = Math.floor(Date.now() / 1_000);
  for (const counter of ['incarnation', 'fencing', 'bundleVersion', 'relaysVersion'] as const) {
    const seen = counter === 'incarnation' || counter === 'fencing' ? marks[counter] : 0;
    const highest = Math.max(await readCounter(tx, counter), seen);
    await raiseCounterTo(tx, counter, Math.max(highest + 1, aboveAll));
  }
  await raiseCounterTo(tx, 'clockHighWaterMs', marks.controlTimeMs);
}

/** Notes beside the store how far it has come. */
export async function keepMarks(store: Store, directory: string): Promise<void> {
  await writeHighWater(directory, await readMarks(store.db));
}
