import { setTimeout as delay } from 'node:timers/promises';
import type { SessionFacts } from '../../protocol/index.ts';

/** How long before its end a person hears of it: enough to find the phone. */
const warnBeforeMs = 300_000;

/** The end is asked for again after this long where nobody could tell it, and at least so long after a warning. */
const againMs = 60_000;

/** The most that a timer can wait for. */
const longestMs = 2_147_483_647;

export interface SessionWarningOptions {
  /** The session as it was when this machine connected. */
  readonly session: SessionFacts | null;
  /** The session as it is now; one in use may end later than it was to. Rejects where nobody can tell. */
  readonly ask: () => Promise<SessionFacts | null>;
  /** Control time; undefined while that is not known. */
  readonly nowMs: () => number | undefined;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
  /** For tests: a wait that keeps no process alive; rejects when the signal aborts. */
  readonly wait?: (forMs: number) => Promise<unknown>;
}

/** Says five minutes before its end that the sign-in ends, so that nothing has to stand still. Resolves when the signal aborts. */
export async function warnOfSessionEnd(options: SessionWarningOptions): Promise<void> {
  const { ask, nowMs, say, signal } = options;
  const wait =
    options.wait ??
    ((forMs: number) => delay(Math.min(forMs, longestMs), undefined, { signal, ref: false }));
  let { session } = options;
  try {
    for (;;) {
      const leftMs = leftOf(session, nowMs());
      if (leftMs !== undefined && leftMs > warnBeforeMs) await wait(leftMs - warnBeforeMs);
      session = await ask().catch(() => null);
      const newMs = leftOf(session, nowMs());
      if (session && newMs !== undefined && newMs <= warnBeforeMs) {
        const at = new Date(session.untilMs).toTimeString().slice(0, 8);
        say(`your sign-in ends at ${at}; to go on without a pause, run: ztna login`);
        await wait(Math.max(newMs, againMs));
      } else if (newMs === undefined) {
        await wait(againMs);
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}

function leftOf(session: SessionFacts | null, nowMs: number | undefined): number | undefined {
  return session === null || nowMs === undefined ? undefined : session.untilMs - nowMs;
}
