import test from 'ava';
import { Turnstile } from '../../../../relay/control-plane/identity/turnstile.ts';

test('run - lets no more run and wait than it may, in the order they came', async (t) => {
  const turnstile = new Turnstile({ maxAtOnce: 2, maxWaiting: 3 });
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
  const turnstile = new Turnstile({ maxAtOnce: 1, maxWaiting: 0 });
  const failure = new Error('no');
  t.is(await t.throwsAsync(turnstile.run(() => Promise.reject(failure))), failure);
  t.is(await turnstile.run(() => Promise.resolve(7)), 7);
});

test('run - lets what is urgent go next and never refuses it', async (t) => {
  const turnstile = new Turnstile({ maxAtOnce: 1, maxWaiting: 1 });
  const order: string[] = [];
  const task = (name: string) => async () => {
    order.push(name);
    await new Promise(setImmediate);
  };
  await Promise.all([
    turnstile.run(task('first')),
    turnstile.run(task('waiting')),
    turnstile.run(task('urgent'), 'urgent'),
    t.throwsAsync(turnstile.run(task('refused')), { code: 'ERR_LIMIT_RATE' }),
  ]);
  t.deepEqual(order, ['first', 'urgent', 'waiting']);
});
