import test from 'ava';
import { ZtnaError } from '../../../protocol/index.ts';
import { Turns } from '../../../relay/control-plane/turns.ts';

const never = new AbortController().signal;

/** Begins so many turns and notes in which order they came. */
function beginAll(turns: Turns, names: readonly string[], gone = never) {
  const begun: string[] = [];
  const ends = new Map<string, () => void>();
  const all = names.map(async (name) => {
    ends.set(name, await turns.begin(gone));
    begun.push(name);
  });
  return { begun, ends, all };
}

test('turns - come in order, and an end that is told twice frees one place', async (t) => {
  const turns = new Turns({ atOnce: 1, waiting: 8, waitMs: 60_000 });
  const { begun, ends, all } = beginAll(turns, ['a', 'b', 'c']);
  await all[0];
  t.deepEqual(begun, ['a']);
  ends.get('a')?.();
  ends.get('a')?.();
  await all[1];
  t.deepEqual(begun, ['a', 'b']);
  ends.get('b')?.();
  await all[2];
  t.deepEqual(begun, ['a', 'b', 'c']);
});

test('turns - whoever finds too many waiting is sent away, and whoever leaves makes room', async (t) => {
  const turns = new Turns({ atOnce: 1, waiting: 1, waitMs: 60_000 });
  const end = await turns.begin(never);
  const leaving = new AbortController();
  const second = turns.begin(leaving.signal);
  const refused = await t.throwsAsync(turns.begin(never), { instanceOf: ZtnaError });
  t.is(refused.code, 'ERR_LIMIT_RATE');
  leaving.abort();
  await t.throwsAsync(second);
  const third = turns.begin(never);
  end();
  t.is(typeof (await third), 'function');
});

test('turns - nobody waits longer than that', async (t) => {
  const turns = new Turns({ atOnce: 1, waiting: 1, waitMs: 1 });
  await turns.begin(never);
  const error = await t.throwsAsync(turns.begin(never), { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_LIMIT_RATE');
});

test('turns - none begins while they are held', async (t) => {
  const turns = new Turns({ atOnce: 2, waiting: 8, waitMs: 60_000 });
  turns.hold();
  const leaving = new AbortController();
  const { begun, all } = beginAll(turns, ['a', 'b', 'c'], leaving.signal);
  await Promise.resolve();
  t.deepEqual(begun, []);
  turns.release();
  await Promise.all(all.slice(0, 2));
  t.deepEqual(begun, ['a', 'b']);
  leaving.abort();
  await t.throwsAsync(all[2] ?? Promise.resolve());
});
