import { fullJitterDelayMs, steadyAfterMs } from '../../protocol/host/index.ts';

/** The tunnels of a relay that drains leave it within this long: all of them hear it at once. */
const drainSpreadMs = 1_000;

/** The longest that one which is told so at every relay waits. */
const drainCapMs = 30_000;

/**
 * How soon a tunnel leaves a relay that says it drains. Relays that say so of every path again and again are humoured
 * ever more slowly, so that none of them keeps agent, control plane and connector busy with handshakes.
 */
export class DrainPace {
  readonly #delayMs: typeof fullJitterDelayMs;
  #notices = 0;

  constructor(delayMs: typeof fullJitterDelayMs = fullJitterDelayMs) {
    this.#delayMs = delayMs;
  }

  /** A path that has lasted so long is to be left: in how many milliseconds. */
  next(lastedMs: number): number {
    if (lastedMs >= steadyAfterMs) this.#notices = 0;
    return this.#delayMs(this.#notices++, { baseMs: drainSpreadMs, capMs: drainCapMs });
  }
}
