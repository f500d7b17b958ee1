import test from 'ava';
import { Lanes } from '../../../../relay/control-plane/channel/lanes.ts';

test('lanes - what is about the same is done in order, what is not at the same time', async (t) => {
  const lanes = new Lanes(8, (error) => t.fail(String(error)));
  const begun: string[] = [];
  const first = Promise.withResolvers<undefined>();
  await lanes.run('a', async () => {
    begun.push('a1');
    await first.promise;
  });
  await lanes.run('a', () => Promise.resolve(void begun.push('a2')));
  await lanes.run('b', () => Promise.resolve(void begun.push('b1')));
  await new Promise(setImmediate);
  t.deepEqual(begun, ['a1', 'b1']);
  first.resolve(undefined);
  await lanes.idle();
  t.deepEqual(begun, ['a1', 'b1', 'a2']);
});

test('lanes - what fails is told, and the next of its lane goes on', async (t) => {
  const failures: unknown[] = [];
  const lanes = new Lanes(8, (error) => failures.push(error));
  const failure = new Error('no');
  let isDone = false;
  await lanes.run('a', () => Promise.reject(failure));
  await lanes.run('a', () => {
    isDone = true;
    return Promise.resolve();
  });
  await lanes.idle();
  t.deepEqual(failures, [failure]);
  t.true(isDone);
});

test('lanes - no more begin than there is room for', async (t) => {
  const lanes = new Lanes(1, (error) => t.fail(String(error)));
  const first = Promise.withResolvers<undefined>();
  let hasRoom = false;
  const running = lanes
    .run('a', async () => {
      await first.promise;
    })
    .then(() => {
      hasRoom = true;
    });
  await new Promise(setImmediate);
  t.false(hasRoom);
  first.resolve(undefined);
  await running;
  t.true(hasRoom);
});
