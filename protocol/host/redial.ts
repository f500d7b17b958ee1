import { randomInt } from 'node:crypto';
import { toZtnaError, ZtnaError } from '../errors.ts';

/** A connection that lasted this long was a good one: the next loss starts from the shortest delay. */
export const steadyAfterMs = 10_000;

/** Until then a loss is taken for a short one, and the delays stay short. */
const shortLossMs = 30_000;

const shortCapMs = 2_000;
const longCapMs = 30_000;

/** The longest delay between attempts when the connection has been lost for so long. */
export function redialCapMs(lostForMs: number): number {
  return lostForMs < shortLossMs ? shortCapMs : longCapMs;
}

/**
 * A delay drawn evenly from 0 to min(cap, base × 2^attempt) milliseconds: also at the cap, so that ten thousand
 * diallers who lost the same relay never meet again. `attempt` counts from 0.
 */
export function fullJitterDelayMs(
  attempt: number,
  options: { readonly baseMs?: number; readonly capMs?: number } = {},
): number {
  const { baseMs = 250, capMs = longCapMs } = options;
  const ceilingMs = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 30));
  return randomInt(0, Math.floor(ceilingMs) + 1);
}

export interface RedialOptions<T> {
  /** One attempt. It ends by itself when the signal aborts. */
  readonly dial: (signal: AbortSignal) => Promise<T>;
  /** Uses the connection; settles once it is lost or the signal has aborted. What it resolves to may say why. */
  readonly run: (connection: T) => Promise<unknown>;
  readonly signal: AbortSignal;
  readonly onWaiting?: (error: ZtnaError, delayMs: number) => void;
  /** Errors that no further attempt can mend. Without it there are none. */
  readonly isFatal?: (error: ZtnaError) => boolean;
  /** An event `wake` on it ends the present wait: the network came back, a user asked. */
  readonly wake?: EventTarget;
  /** For tests: the first ceiling of the delays. */
  readonly baseMs?: number;
}

/**
 * Keeps one connection for as long as the signal lets it: dials, uses, and dials again, for ever, with full jitter.
 * Resolves when the signal aborts; throws only an error that `isFatal` names.
 */
export async function redialForever<T>(options: RedialOptions<T>): Promise<void> {
  const { dial, run, signal, isFatal = () => false } = options;
  const { default: pRetry } = await import('p-retry');
  let attempt = 0;
  let lostAtMs = performance.now();

  async function backOff(error: ZtnaError): Promise<void> {
    const delayMs = fullJitterDelayMs(attempt, {
      capMs: redialCapMs(performance.now() - lostAtMs),
      ...(options.baseMs === undefined ? {} : { baseMs: options.baseMs }),
    });
    attempt += 1;
    options.onWaiting?.(error, delayMs);
    await waitFor(delayMs, signal, options.wake);
  }

  const isOver = () => signal.aborted;
  const goesOn = (error: ZtnaError) => !isOver() && !isFatal(error);
  while (!isOver()) {
    let connection: T;
    try {
      connection = await pRetry(
        async () => {
          try {
            return await dial(signal);
          } catch (error) {
            throw toZtnaError(error); // p-retry gives up on a TypeError.
          }
        },
        {
          retries: Infinity,
          // Its own delays lose their jitter at their cap; ours are waited for in onFailedAttempt.
          minTimeout: 0,
          maxTimeout: 0,
          onFailedAttempt: async ({ error }) => {
            if (goesOn(toZtnaError(error))) await backOff(toZtnaError(error));
          },
          shouldRetry: ({ error }) => goesOn(toZtnaError(error)),
          // The signal is not handed on: p-retry would drop a connection that came just as it aborted.
        },
      );
    } catch (error) {
      if (isOver()) return;
      throw error;
    }
    const openedAtMs = performance.now();
    const ending = await use(run, connection);
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
    if (performance.now() - openedAtMs >= steadyAfterMs) {
      attempt = 0;
      lostAtMs = performance.now();
    }
    await backOff(error);
  }
}

async function use<T>(run: (connection: T) => Promise<unknown>, connection: T): Promise<unknown> {
  try {
    return await run(connection);
  } catch (error) {
    return toZtnaError(error);
  }
}

async function waitFor(
  delayMs: number,
  signal: AbortSignal,
  wake: EventTarget | undefined,
): Promise<void> {
  if (signal.aborted) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      wake?.removeEventListener('wake', done);
      resolve();
    };
    const timer = setTimeout(done, delayMs);
    signal.addEventListener('abort', done, { once: true });
    wake?.addEventListener('wake', done, { once: true });
  });
}
