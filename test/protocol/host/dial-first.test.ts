import test from 'ava';
import { ZtnaError } from '../../../protocol/errors.ts';
import { dialFirst } from '../../../protocol/host/dial-first.ts';

const refused = new ZtnaError('ERR_RELAY_UNREACHABLE', { reason: 'connection_refused' });

/** Candidates that answer when the test says so. */
function parties(...names: string[]) {
  const begun: string[] = [];
  const discarded: string[] = [];
  const aborted: string[] = [];
  const waiting = new Map(names.map((name) => [name, Promise.withResolvers<string>()]));
  const began = new Map(names.map((name) => [name, Promise.withResolvers<undefined>()]));
  const options = {
    candidates: names,
    dial: (name: string, signal: AbortSignal) => {
      begun.push(name);
      began.get(name)?.resolve(undefined);
      signal.addEventListener('abort', () => aborted.push(name));
      return waiting.get(name)?.promise ?? Promise.reject(refused);
    },
    discard: (name: string) => {
      discarded.push(name);
    },
    staggerMs: 3_600_000,
  };
  return {
    options,
    begun,
    aborted,
    discarded,
    answer: (name: string) => waiting.get(name)?.resolve(name),
    refuse: (name: string, error = refused) => waiting.get(name)?.reject(error),
    began: (name: string) => began.get(name)?.promise,
  };
}

test('dialFirst - takes the preferred one and dials no other while that answers', async (t) => {
  const { options, begun, answer } = parties('a', 'b');
  const dialling = dialFirst(options);
  answer('a');
  t.deepEqual(await dialling, { candidate: 'a', connection: 'a' });
  t.deepEqual(begun, ['a']);
});

test('dialFirst - goes to the next at once when one refuses', async (t) => {
  const { options, begun, answer, refuse } = parties('a', 'b', 'c');
  const failed: string[] = [];
  const dialling = dialFirst({ ...options, onFailed: (name) => failed.push(name) });
  refuse('a');
  answer('b');
  t.is((await dialling).connection, 'b');
  t.deepEqual(begun, ['a', 'b']);
  t.deepEqual(failed, ['a']);
});

test('dialFirst - dials the next besides one that is silent, and gives the other up once one has answered', async (t) => {
  const { options, began, answer, aborted, discarded } = parties('a', 'b');
  const dialling = dialFirst({ ...options, staggerMs: 1 });
  await began('b');
  answer('b');
  t.is((await dialling).candidate, 'b');
  t.true(aborted.includes('a'));
  answer('a'); // too late
  await new Promise((resolve) => setImmediate(resolve));
  t.deepEqual(discarded, ['a']);
});

test('dialFirst - still takes the preferred one when that answers after the next was begun', async (t) => {
  const { options, began, answer } = parties('a', 'b');
  const dialling = dialFirst({ ...options, staggerMs: 1 });
  await began('b');
  answer('a');
  t.is((await dialling).candidate, 'a');
});

test('dialFirst - throws what the preferred one failed with when all do', async (t) => {
  const { options, refuse } = parties('a', 'b');
  const dialling = dialFirst(options);
  refuse('a', new ZtnaError('ERR_IDENTITY_ROLE'));
  refuse('b');
  await t.throwsAsync(dialling, { code: 'ERR_IDENTITY_ROLE' });
});

test('dialFirst - ends with its signal', async (t) => {
  const { options, aborted } = parties('a', 'b');
  const ending = new AbortController();
  const dialling = dialFirst({ ...options, signal: ending.signal });
  ending.abort(new ZtnaError('ERR_TUNNEL_CLOSED'));
  await t.throwsAsync(dialling, { code: 'ERR_TUNNEL_CLOSED' });
  t.deepEqual(aborted, ['a']);
  await t.throwsAsync(dialFirst({ ...options, signal: ending.signal }), {
    code: 'ERR_TUNNEL_CLOSED',
  });
});

test('dialFirst - without a candidate says that no relay is known', async (t) => {
  const { options } = parties();
  await t.throwsAsync(dialFirst(options), { code: 'ERR_RELAY_UNREACHABLE' });
});
