import test from 'ava';
import { warnOfSessionEnd } from '../../../client/front-end/session-warning.ts';
import type { SessionFacts } from '../../../protocol/index.ts';

const minuteMs = 60_000;
const sessionUntil = (untilMs: number): SessionFacts => ({
  session: 'ses_1' as never,
  user: 'alice',
  methods: ['password'],
  signedInAtMs: 0,
  untilMs,
});

/** Lives through the given answers, one for each time that the session is asked for; then the command ends. */
async function live(
  session: SessionFacts | null,
  answers: (SessionFacts | null | Error)[],
): Promise<{ readonly said: readonly [atMs: number, line: string][]; readonly waits: number[] }> {
  const stopping = new AbortController();
  const said: [number, string][] = [];
  const waits: number[] = [];
  let nowMs = 0;
  await warnOfSessionEnd({
    session,
    ask: async () => {
      await Promise.resolve();
      const answer = answers.shift();
      if (answer instanceof Error) throw answer;
      return answer ?? null;
    },
    nowMs: () => nowMs,
    say: (line) => said.push([nowMs, line]),
    signal: stopping.signal,
    wait: async (forMs) => {
      await Promise.resolve();
      waits.push(forMs);
      nowMs += forMs;
      if (answers.length > 0) return;
      stopping.abort();
      throw new Error('aborted');
    },
  });
  return { said, waits };
}

test('warnOfSessionEnd - says so once, five minutes before', async (t) => {
  const hour = sessionUntil(60 * minuteMs);
  const { said } = await live(hour, [hour]);
  t.deepEqual(
    said.map(([atMs]) => atMs),
    [55 * minuteMs],
  );
  t.regex(said[0]?.[1] ?? '', /^your sign-in ends at \d\d:\d\d:\d\d; .*ztna login$/);
});

test('warnOfSessionEnd - says nothing of a session that lasts longer by now, before that ends', async (t) => {
  const longer = sessionUntil(90 * minuteMs);
  const { said } = await live(sessionUntil(60 * minuteMs), [longer, longer]);
  t.deepEqual(
    said.map(([atMs]) => atMs),
    [85 * minuteMs],
  );
});

test('warnOfSessionEnd - asks again in a minute where nobody can tell', async (t) => {
  const soon = sessionUntil(4 * minuteMs);
  const { said, waits } = await live(null, [new Error('away'), null, soon, soon]);
  t.deepEqual(waits.slice(0, 2), [minuteMs, minuteMs]);
  t.is(said[0]?.[0], 2 * minuteMs);
});
