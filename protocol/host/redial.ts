import { randomInt } from 'node:crypto';
import { errorRow, toZtnaError, ZtnaError } from '../errors.ts';
import { machineNetwork, type NetworkWatch } from './network-watch.ts';

/** A connection that lasted this long was a good one: the next loss starts from the shortest delay. */
export const steadyAfterMs = 10_000;

const shortCapMs = 2_000;
const longCapMs = 30_000;
const usualBaseMs = 250;

/** An attempt that is younger than this when the network changes goes on: it may be of the new network already. */
const youngAttemptMs = 500;

/** From half a minute on a loss may well last; waiting this part of it costs nobody much when it is over. */
const partOfLoss = 1 / 15;

/** The longest delay between attempts when the connection has been lost for so long: 2 s for 30 s, then ever more, to 30 s. */
export function redialCapMs(lostForMs: number, leastMs = shortCapMs): number {
  return Math.min(longCapMs, Math.max(leastMs, lostForMs * partOfLoss));
}

/**
 * A delay drawn evenly from 0 to min(cap, base × 2^attempt) milliseconds: also at the cap, so that ten thousand
 * diallers who lost the same relay never meet again. `attempt` counts from 0.
 */
export function fullJitterDelayMs(
  attempt: number,
  options: { readonly baseMs?: number; readonly capMs?: number } = {},
): number {
  const { baseMs = usualBaseMs, capMs = longCapMs } = options;
  const ceilingMs = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
  return randomInt(0, Math.floor(ceilingMs) + 1);
}

/**
 * How long to wait before each attempt after a loss: full jitter whose ceiling doubles from 250 ms to 2 s, and
 * grows to 30 s once the loss has lasted 30 s. It starts anew only after a connection that lasted ten seconds, or when the network
 * changed. A relay that says it has too much to do (ERR_LIMIT_RATE) is given the whole range at once. `capMs` takes the
 * place of those 2 s where diallers are few and many wait for them.
 */
export class Backoff {
  readonly #baseMs: number;
  readonly #capMs: number;
  readonly #nowMs: () => number;
  #attempt = 0;
  #lostAtMs: number;

  constructor(
    options: {
      readonly baseMs?: number;
      readonly capMs?: number;
      readonly nowMs?: () => number;
    } = {},
  ) {
    this.#baseMs = options.baseMs ?? usualBaseMs;
    this.#capMs = options.capMs ?? shortCapMs;
    this.#nowMs = options.nowMs ?? (() => performance.now());
    this.#lostAtMs = this.#nowMs();
  }

  /** The delay before the next attempt, in milliseconds. `error` is what the last one failed with. */
  nextMs(error?: ZtnaError): number {
    const isOverloaded = error && errorRow(error.code).closeCode === overloadedCloseCode;
    const leastMs = isOverloaded ? shortCapMs : this.#capMs;
    const capMs = redialCapMs(this.#nowMs() - this.#lostAtMs, leastMs);
    if (isOverloaded) {
      this.#attempt = Math.max(this.#attempt, Math.ceil(Math.log2(shortCapMs / this.#baseMs)));
    }
    return fullJitterDelayMs(this.#attempt++, { baseMs: this.#baseMs, capMs });
  }

  /** A connection was lost that had lasted so long. */
  lost(lastedMs: number): void {
    if (lastedMs >= steadyAfterMs) this.restart();
    else this.#lostAtMs += lastedMs; // in that time it was not lost
  }

  /** What was learned from earlier attempts counts no more. */
  restart(): void {
    this.#attempt = 0;
    this.#lostAtMs = this.#nowMs();
  }
}

const overloadedCloseCode = errorRow('ERR_LIMIT_RATE').closeCode;

export interface RedialOptions<T> {
  /** One attempt. It ends by itself when the signal aborts. */
  readonly dial: (signal: AbortSignal) => Promise<T>;
  /** Uses the connection; settles once it is lost or the signal has aborted. What it resolves to may say why. */
  readonly run: (connection: T) => Promise<unknown>;
  readonly signal: AbortSignal;
  readonly onWaiting?: (error: ZtnaError, delayMs: number) => void;
  /** Errors that no further attempt can mend. Without it there are none. */
  readonly isFatal?: (error: ZtnaError) => boolean;
  /** An event `wake` on it ends the present wait: a user asked. */
  readonly wake?: EventTarget;
  /** Its events end the present wait and an attempt under way, and start the delays anew; by default this machine's. */
  readonly network?: NetworkWatch;
  /** For tests: the first ceiling of the delays. */
  readonly baseMs?: number;
  /** As `Backoff` says. */
  readonly capMs?: number;
}

/**
 * Keeps one connection for as long as the signal lets it: dials, uses, and dials again, for ever, with full jitter.
 * Resolves when the signal aborts; throws only an error that `isFatal` names.
 */
export async function redialForever<T>(options: RedialOptions<T>): Promise<void> {
  const { network = machineNetwork, baseMs, capMs } = options;
  const backoff = new Backoff({
    ...(baseMs === undefined ? {} : { baseMs }),
    ...(capMs === undefined ? {} : { capMs }),
  });
  const wake = options.wake ?? new EventTarget();
  const unsubscribe = network.subscribe(() => {
    backoff.restart();
    wake.dispatchEvent(new Event('network'));
    wake.dispatchEvent(new Event('wake'));
  });
  try {
    await redial({ ...options, wake }, backoff);
  } finally {
    unsubscribe();
  }
}

async function redial<T>(
  options: RedialOptions<T> & { readonly wake: EventTarget },
  backoff: Backoff,
): Promise<void> {
  const { dial, run, signal, wake, isFatal = () => false } = options;
  const { default: pRetry } = await import('p-retry');

  async function backOff(error: ZtnaError): Promise<void> {
    const delayMs = backoff.nextMs(error);
    options.onWaiting?.(error, delayMs);
    await waitFor(delayMs, signal, wake);
  }

  const isOver = () => signal.aborted;
  const goesOn = (error: ZtnaError) => !isOver() && !isFatal(error);
  while (!isOver()) {
    const attempt = new Attempt<T>(signal, wake);
    let connection: T;
    try {
      connection = await pRetry(() => attempt.dial(dial), {
        retries: Infinity,
        // Its own delays lose their jitter at their cap; ours are waited for in onFailedAttempt.
        minTimeout: 0,
        maxTimeout: 0,
        onFailedAttempt: async ({ error }) => {
          if (goesOn(toZtnaError(error))) await backOff(toZtnaError(error));
        },
        shouldRetry: ({ error }) => goesOn(toZtnaError(error)),
        // The signal is not handed on: p-retry would drop a connection that came just as it aborted.
      });
    } catch (error) {
      attempt.done();
      if (isOver()) return;
      throw error;
    }
    const openedAtMs = performance.now();
    const ending = await use(run, connection);
    attempt.done();
    if (isOver()) return;
    const error =
      ending instanceof ZtnaError
        ? ending
        : new ZtnaError('ERR_RELAY_UNREACHABLE', {
            message: 'the connection was lost',
            hop: 'network',
            reason: 'connection_lost',
          });
    if (!goesOn(error)) throw error;
    backoff.lost(performance.now() - openedAtMs);
    await backOff(error);
  }
}

/**
 * Dials with a signal of its own that follows `signal` until `done`. A change of the network ends an attempt that began
 * before it, whose answer will not find us any more, and another begins at once.
 */
class Attempt<T> {
  readonly #signal: AbortSignal;
  readonly #wake: EventTarget;
  #ending = new AbortController();
  readonly #onAbort = () => {
    this.#ending.abort(this.#signal.reason);
  };

  constructor(signal: AbortSignal, wake: EventTarget) {
    this.#signal = signal;
    this.#wake = wake;
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  async dial(dial: (signal: AbortSignal) => Promise<T>): Promise<T> {
    for (;;) {
      const startedAtMs = performance.now();
      this.#ending = new AbortController();
      if (this.#signal.aborted) this.#onAbort();
      const onNetwork = () => {
        if (performance.now() - startedAtMs < youngAttemptMs) return;
        this.#ending.abort(networkChanged());
      };
      this.#wake.addEventListener('network', onNetwork);
      try {
        return await dial(this.#ending.signal);
      } catch (error) {
        if (!this.#ending.signal.aborted || this.#signal.aborted) throw toZtnaError(error); // p-retry gives up on a TypeError.
      } finally {
        this.#wake.removeEventListener('network', onNetwork);
      }
    }
  }

  done(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
  }
}

function networkChanged(): ZtnaError {
  return new ZtnaError('ERR_RELAY_UNREACHABLE', {
    message: 'the network changed',
    hop: 'network',
    reason: 'network_changed',
  });
}

async function use<T>(run: (connection: T) => Promise<unknown>, connection: T): Promise<unknown> {
  try {
    return await run(connection);
  } catch (error) {
    return toZtnaError(error);
  }
}

/** Waits before another attempt: less long when the signal aborts, the machine wakes or its network changes. */
export async function waitToRedial(
  delayMs: number,
  signal: AbortSignal,
  network: NetworkWatch = machineNetwork,
): Promise<void> {
  const wake = new EventTarget();
  const unsubscribe = network.subscribe(() => {
    wake.dispatchEvent(new Event('wake'));
  });
  await waitFor(delayMs, signal, wake);
  unsubscribe();
}

async function waitFor(delayMs: number, signal: AbortSignal, wake: EventTarget): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      wake.removeEventListener('wake', done);
      resolve();
    };
    const timer = setTimeout(done, delayMs);
    signal.addEventListener('abort', done, { once: true });
    wake.addEventListener('wake', done, { once: true });
  });
}
