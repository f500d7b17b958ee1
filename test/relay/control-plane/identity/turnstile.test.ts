import test from 'ava';
import {
  Turnstile,
  type Place,
  type TurnstileLimits,
} from '../../../../relay/control-plane/identity/turnstile.ts';

const limits: TurnstileLimits = {
  maxAtOnce: 1,
  maxWaiting: 4,
  maxWaitingKnown: 4,
  maxWaitingOfOne: 2,
};
const admin: Place = { priority: 'admin' };
const known = (of: string): Place => ({ priority: 'known', of });
const full = { code: 'ERR_LIMIT_RATE' } as const;

/** Tasks that put their names down as they begin. */
function line(changes: Partial<TurnstileLimits> = {}) {
  const turnstile = new Turnstile({ ...limits, ...changes });
  const order: string[] = [];
  const enter = (name: string, place?: Place) =>
    turnstile.run(async () => {
      order.push(name);
      await new Promise(setImmediate);
    }, place);
  return { order, enter };
}

test('run - lets no more run and wait than it may, in the order they came', async (t) => {
  const turnstile = new Turnstile({ ...limits, maxAtOnce: 2, maxWaiting: 3 });
  const order: number[] = [];
  let running = 0;
  let most = 0;
  const task = async (name: number) => {
    order.push(name);
    most = Math.max(most, ++running);
    await new Promise(setImmediate);
    running--;
    return name;
  };
  const results = await Promise.allSettled(
    [1, 2, 3, 4, 5, 6, 7].map((name) => turnstile.run(() => task(name))),
  );
  t.deepEqual(order, [1, 2, 3, 4, 5]);
  t.is(most, 2);
  t.deepEqual(
    results.map((result) => result.status === 'fulfilled'),
    [true, true, true, true, true, false, false],
  );
  for (const result of results.slice(5)) {
    t.like(result, { reason: { code: 'ERR_LIMIT_RATE' } });
  }
});

test('run - frees the place of a task that failed', async (t) => {
  const turnstile = new Turnstile({ ...limits, maxWaiting: 0 });
  const failure = new Error('no');
  t.is(await t.throwsAsync(turnstile.run(() => Promise.reject(failure))), failure);
  t.is(await turnstile.run(() => Promise.resolve(7)), 7);
});

test('run - lets administrators go first, then who is known, then others, each in the order they came', async (t) => {
  const { order, enter } = line();
  await Promise.all([
    enter('first'),
    enter('usual 1'),
    enter('known 1', known('anna')),
    enter('admin 1', admin),
    enter('usual 2'),
    enter('known 2', known('ben')),
    enter('admin 2', admin),
  ]);
  t.deepEqual(order, ['first', 'admin 1', 'admin 2', 'known 1', 'known 2', 'usual 1', 'usual 2']);
});

test('run - refuses who is known too once so many of them wait, and an administrator never', async (t) => {
  const { order, enter } = line({ maxWaiting: 0, maxWaitingKnown: 2 });
  await Promise.all([
    enter('first'),
    enter('known 1', known('anna')),
    enter('known 2', known('ben')),
    t.throwsAsync(enter('refused', known('carl')), full),
    t.throwsAsync(enter('refused'), full),
    ...['1', '2', '3', '4', '5'].map((name) => enter(name, admin)),
  ]);
  t.deepEqual(order, ['first', '1', '2', '3', '4', '5', 'known 1', 'known 2']);
});

test('run - lets one of one account run at a time, a few of it wait, and others by', async (t) => {
  const { order, enter } = line({ maxAtOnce: 2 });
  await Promise.all([
    enter('anna 1', known('anna')),
    enter('anna 2', known('anna')),
    enter('anna 3', known('anna')),
    t.throwsAsync(enter('anna 4', known('anna')), full),
    enter('ben', known('ben')),
    enter('usual'),
  ]);
  // The second place stayed free for whoever came: Ben, who goes by two that wait.
  t.deepEqual(order.slice(0, 2), ['anna 1', 'ben']);
  t.deepEqual(
    order.filter((name) => name.startsWith('anna')),
    ['anna 1', 'anna 2', 'anna 3'],
  );
  t.true(order.includes('usual'));
});

test('run - lets an account whose task failed go on', async (t) => {
  const turnstile = new Turnstile({ ...limits, maxAtOnce: 2 });
  const failing = turnstile.run(() => Promise.reject(new Error('no')), known('anna'));
  const next = turnstile.run(() => Promise.resolve(7), known('anna'));
  await t.throwsAsync(failing, { message: 'no' });
  t.is(await next, 7);
});
