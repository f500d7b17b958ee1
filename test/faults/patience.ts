import { setTimeout as delay } from 'node:timers/promises';

/** Tries until `attempt` answers something other than undefined and throws nothing; undefined when time is over first. */
export async function eventually<T>(
  attempt: () => Promise<T | undefined> | T | undefined,
  withinMs: number,
  everyMs = 100,
): Promise<T | undefined> {
  const endAtMs = Date.now() + withinMs;
  do {
    const answer = await Promise.resolve()
      .then(attempt)
      .catch(() => undefined);
    if (answer !== undefined) return answer;
    await delay(everyMs);
  } while (Date.now() < endAtMs);
  return undefined;
}

/** As `eventually`, answering how long it took; Infinity when it never came about. */
export async function millisecondsUntil(
  holds: () => Promise<boolean> | boolean,
  withinMs: number,
  everyMs = 50,
): Promise<number> {
  const startedAtMs = Date.now();
  const done = await eventually(
    async () => ((await holds()) ? true : undefined),
    withinMs,
    everyMs,
  );
  return done ? Date.now() - startedAtMs : Number.POSITIVE_INFINITY;
}
