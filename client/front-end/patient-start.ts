import { toZtnaError, type ErrorCode } from '../../protocol/index.ts';
import { Backoff, waitToRedial } from '../../protocol/host/index.ts';

/** For so long a first connection is tried again and again; then its failure is the command's. */
const patientForMs = 60_000;

export interface PatientStartOptions<T> {
  readonly start: () => Promise<T>;
  /** What passes by itself before long. */
  readonly passing: readonly ErrorCode[];
  /** A line for the person who waits. */
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
  /** For tests: the usual wait, a clock and a backoff. */
  readonly wait?: (delayMs: number, signal: AbortSignal) => Promise<void>;
  readonly nowMs?: () => number;
}

/**
 * Starts, and starts again where what it failed with soon passes, for a minute at most: a relay that has too much to do
 * sends everybody away at once, to come back spread over seconds. Throws the last failure.
 */
export async function startPatiently<T>(options: PatientStartOptions<T>): Promise<T> {
  const { start, passing, say, signal } = options;
  const { wait = waitToRedial, nowMs = () => performance.now() } = options;
  const backoff = new Backoff({ nowMs });
  const startedAtMs = nowMs();
  const isStopped = (): boolean => signal.aborted;
  for (;;) {
    try {
      return await start();
    } catch (thrown) {
      const error = toZtnaError(thrown);
      const isOver = isStopped() || nowMs() - startedAtMs >= patientForMs;
      if (isOver || !passing.includes(error.code)) throw error;
      const delayMs = backoff.nextMs(error);
      say(`${error.message} [${error.code}]; trying again in ${(delayMs / 1_000).toFixed(1)} s`);
      await wait(delayMs, signal);
      if (isStopped()) throw error;
    }
  }
}
