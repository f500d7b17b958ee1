import { setTimeout as delay } from 'node:timers/promises';
import { abortError, fullJitterDelayMs } from '../../protocol/host/index.ts';
import { limits } from './limits.ts';

/** Looks, for all who wait, whether something can be reached again. */
export class Comeback {
  readonly #attempt: (signal: AbortSignal) => Promise<void>;
  #waiting = 0;
  #looking: { readonly found: Promise<void>; readonly stop: () => void } | undefined;

  /** `attempt` rejects while it cannot. */
  constructor(attempt: (signal: AbortSignal) => Promise<void>) {
    this.#attempt = attempt;
  }

  /** Resolves once it may be tried again, not for all in the same moment. Throws when the signal aborts before. */
  async wait(signal: AbortSignal): Promise<void> {
    this.#waiting++;
    this.#looking ??= this.#look();
    const aborted = Promise.withResolvers<never>();
    const onAbort = () => {
      aborted.reject(abortError(signal));
    };
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal.aborted) onAbort();
      await Promise.race([this.#looking.found, aborted.promise]);
      const spreadMs = this.#waiting * limits.forwardSpreadMs;
      await delay(fullJitterDelayMs(0, { baseMs: spreadMs }), undefined, { signal });
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#waiting--;
      this.#stopUnlessWaited();
    }
  }

  #stopUnlessWaited(): void {
    if (this.#waiting === 0) this.#looking?.stop();
  }

  #look() {
    const stopping = new AbortController();
    const { signal } = stopping;
    const found = (async () => {
      while (!signal.aborted) {
        await delay(limits.forwardAgainMs, undefined, { signal }).catch(() => undefined);
        if (await this.#attempt(signal).then(isDone, () => false)) break;
      }
      if (!signal.aborted) this.#looking = undefined;
    })();
    return {
      found,
      stop: () => {
        this.#looking = undefined;
        stopping.abort();
      },
    };
  }
}

const isDone = () => true;
