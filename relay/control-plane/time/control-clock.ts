import { performance } from 'node:perf_hooks';

/** How far ahead of the time given out a mark is kept: the most that a crash can move control time forward. */
export const markAheadMs = 5_000;

/** How often the mark is raised where the store has a clock of its own, which is not far from it. */
const markEveryMs = 2_500;

/** Behind its own estimate control time runs at this part of real speed until the machine's clock has caught up. */
const slewRate = 0.9;

export interface ClockReadings {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

/**
 * The store's time, which every lease, grant and session is written in. It follows the machine's clock but never
 * falls, not across a restart either: a mark ahead of it is kept in the store and a start begins at or above it.
 * A machine clock stepped back makes it run slightly slow, never stand still. Where several control planes share a
 * store, they all follow the store's clock, and the mark is what was given out: none starts ahead of the others.
 */
export class ServerClock {
  readonly #read: () => ClockReadings;
  readonly #isShared: boolean;
  #lastMs: number;
  #at: ClockReadings;
  #markMs: number;

  constructor(markMs: number, read: () => ClockReadings = readClocks, isShared = false) {
    this.#read = read;
    this.#isShared = isShared;
    this.#at = read();
    const { wallMs } = this.#at;
    // A shared mark ahead of the store's clock: that clock was set back, and some time was given out after the mark.
    const startMs = isShared && markMs > wallMs ? markMs + markAheadMs : markMs;
    this.#lastMs = Math.max(Math.floor(wallMs), startMs);
    this.#markMs = markMs;
  }

  /** Control time in whole milliseconds. */
  nowMs(): number {
    const at = this.#read();
    const elapsedMs = Math.max(0, at.monotonicMs - this.#at.monotonicMs);
    const steadyMs = this.#lastMs + elapsedMs * slewRate;
    const nowMs = Math.max(at.wallMs, steadyMs);
    this.#at = at;
    this.#lastMs = nowMs;
    return Math.floor(nowMs);
  }

  /** The mark to write to the store now, or undefined while the one written is still far enough ahead. */
  dueMarkMs(): number | undefined {
    const nowMs = this.nowMs();
    if (this.#isShared) return nowMs - this.#markMs < markEveryMs ? undefined : nowMs;
    return this.#markMs - nowMs > markAheadMs / 2 ? undefined : nowMs + markAheadMs;
  }

  /** Notes that the store holds this mark. */
  marked(markMs: number): void {
    this.#markMs = Math.max(this.#markMs, markMs);
  }
}

function readClocks(): ClockReadings {
  return { wallMs: Date.now(), monotonicMs: performance.now() };
}
