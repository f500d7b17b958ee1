import { performance } from 'node:perf_hooks';
import type { ClockReadings } from './control-clock.ts';

/** A reading that took longer says less than the one before it, unless that one is old. */
const goodRoundTripMs = 250;
const oldMs = 60_000;

/**
 * The store's clock as this process estimates it: learned by asking, kept by the monotonic clock in between. What the
 * machine's own clock says plays no part.
 */
export class StoreClock {
  readonly #ask: () => Promise<number>;
  readonly #monotonic: () => number;
  #storeMs = 0;
  #atMs = 0;
  #hasAsked = false;

  constructor(ask: () => Promise<number>, monotonic: () => number = () => performance.now()) {
    this.#ask = ask;
    this.#monotonic = monotonic;
  }

  /** Asks again. Throws as the store does, and then keeps what it knows. */
  async learn(): Promise<void> {
    const sentMs = this.#monotonic();
    const storeMs = await this.#ask();
    const nowMs = this.#monotonic();
    const roundTripMs = nowMs - sentMs;
    const isOld = !this.#hasAsked || nowMs - this.#atMs > oldMs;
    if (roundTripMs > goodRoundTripMs && !isOld) return;
    this.#hasAsked = true;
    this.#storeMs = storeMs + roundTripMs / 2;
    this.#atMs = nowMs;
  }

  read(): ClockReadings {
    const monotonicMs = this.#monotonic();
    return { wallMs: this.#storeMs + (monotonicMs - this.#atMs), monotonicMs };
  }
}
