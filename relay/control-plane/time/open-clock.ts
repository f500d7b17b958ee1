import { raiseCounterTo, readCounter, type Store } from '../store/index.ts';
import { markAheadMs, ServerClock } from './control-clock.ts';
import { StoreClock } from './store-clock.ts';

/** Control time, and how to keep it close to the clock that it follows. */
export interface OpenedClock {
  readonly clock: ServerClock;
  /** Learns the store's clock again, where that is the one; to be called every few seconds. */
  readonly learn: () => Promise<void>;
}

/** The clock of a control plane that begins: at or above all that was given out before. */
export async function openClock(store: Store): Promise<OpenedClock> {
  const markMs = await readCounter(store.db, 'clockHighWaterMs');
  const firstMs = await store.readClockMs();
  if (firstMs === null) {
    const clock = new ServerClock(markMs);
    const aheadMs = clock.nowMs() + markAheadMs;
    await store.write((tx) => raiseCounterTo(tx, 'clockHighWaterMs', aheadMs));
    clock.marked(aheadMs);
    return { clock, learn: () => Promise.resolve() };
  }
  const storeClock = new StoreClock(async () => (await store.readClockMs()) ?? firstMs);
  await storeClock.learn();
  const clock = new ServerClock(markMs, () => storeClock.read(), true);
  await markClock({ clock, store });
  return { clock, learn: () => storeClock.learn() };
}

/** Keeps the mark that control time does not fall below across a crash. */
export async function markClock({
  clock,
  store,
}: {
  readonly clock: ServerClock;
  readonly store: Store;
}): Promise<void> {
  const markMs = clock.dueMarkMs();
  if (markMs === undefined) return;
  await store.write((tx) => raiseCounterTo(tx, 'clockHighWaterMs', markMs));
  clock.marked(markMs);
}
