import { errorRow, type ZtnaError } from '../../protocol/index.ts';
import { withRef } from './tunnel-end.ts';

/** How long an end, or a loss, without a reason waits for one to come over the control channel. */
export const reasonWithinMs = 1_000;

/**
 * Why a tunnel ended, told once. Relay and control plane speak on two sockets, and the one that cuts first has no room
 * for a reason: a denial without one is told only after a moment in which the reason may come.
 */
export class EndReport {
  /** Resolves with why it ended. Never rejects. */
  readonly told: Promise<ZtnaError>;
  readonly #ref: () => string;
  readonly #settle: (error: ZtnaError) => void;
  #timer: NodeJS.Timeout | undefined;

  /** `ref` is the decision that had allowed the tunnel, for support to look up. */
  constructor(ref: () => string) {
    this.#ref = ref;
    const { promise, resolve } = Promise.withResolvers<ZtnaError>();
    this.told = promise;
    this.#settle = resolve;
  }

  /** Tells it now, unless it was told before. */
  tell(error: ZtnaError): void {
    this.#settle(withRef(error, this.#ref()));
  }

  /** Tells how it ended, after a moment where that lacks a reason: `tell` may give a better one meanwhile. */
  tellExplained(error: ZtnaError): void {
    const isUnexplained = error.reason === undefined && errorRow(error.code).family === 'denied';
    if (!isUnexplained) {
      this.tell(error);
      return;
    }
    this.#timer = setTimeout(() => {
      this.tell(error);
    }, reasonWithinMs);
  }

  /** Waits for no reason any more, and leaves untold what was not told. */
  stop(): void {
    clearTimeout(this.#timer);
  }
}
