import test, { type ExecutionContext } from 'ava';
import { createLogger } from '../../protocol/host/index.ts';
import { AppHealth } from '../../connector/app-health.ts';
import { parseAppArguments, type AppMap } from '../../connector/app-map.ts';
import { eventsOf } from './temporary-directory.ts';

/** An app named `app` that is checked as fast as can be. */
function mapOf(
  port: number,
  check: Partial<{ httpPath: string; intervalMs: number }> = {},
): AppMap {
  const target = parseAppArguments([`app=tcp://127.0.0.1:${port}`]).get('app')?.target;
  if (!target) throw new Error('no target');
  const quick = { httpPath: null, intervalMs: 4, timeoutMs: 1_000, ...check };
  return new Map([['app', { target, check: quick }]]);
}

/** A watch whose checks a test answers: each waits until `answer` is called. */
function rig(t: ExecutionContext) {
  const log: string[] = [];
  const asked: ((failure: string | undefined) => void)[] = [];
  const waiting: (() => void)[] = [];
  const changes: (boolean | undefined)[] = [];
  let running = 0;
  let mostAtOnce = 0;
  const health = new AppHealth({
    logger: createLogger({ program: 'test', format: 'json', write: (line) => log.push(line) }),
    onChange: () => {
      changes.push(health.isUp('app'));
    },
    check: async () => {
      mostAtOnce = Math.max(mostAtOnce, ++running);
      const answered = Promise.withResolvers<string | undefined>();
      asked.push(answered.resolve);
      for (const wake of waiting.splice(0)) wake();
      const failure = await answered.promise;
      running--;
      return failure;
    },
  });
  t.teardown(() => {
    health.stop();
  });
  /** Answers the next check, and waits for the one behind it. */
  const answer = async (failure?: string): Promise<void> => {
    while (asked.length === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    asked.shift()?.(failure);
    while (asked.length === 0) await new Promise<void>((resolve) => waiting.push(resolve));
  };
  return { health, answer, changes, log, mostAtOnce: () => mostAtOnce };
}

test('AppHealth - takes two failures in a row for down, and one success for up', async (t) => {
  const { health, answer, changes, log, mostAtOnce } = rig(t);
  health.watch(mapOf(1));
  t.deepEqual(health.results(), []);
  await answer();
  t.deepEqual(health.results(), [['app', true]]);
  await answer('app_refused');
  t.deepEqual(health.results(), [['app', true]]);
  await answer();
  await answer('app_refused');
  await answer('timeout');
  t.deepEqual(health.results(), [['app', false]]);
  await answer('timeout');
  await answer();
  t.deepEqual(health.results(), [['app', true]]);
  t.deepEqual(changes, [true, false, true]);
  t.deepEqual(eventsOf(log), ['app_down', 'app_up']);
  t.regex(log[0] ?? '', /"app":"app","reason":"timeout"/);
  t.is(mostAtOnce(), 1);
});

test('AppHealth - keeps what it knows of an app that stays, and forgets one that changes', async (t) => {
  const { health, answer } = rig(t);
  health.watch(mapOf(1));
  await answer();
  health.watch(mapOf(1));
  t.is(health.isUp('app'), true);
  health.watch(mapOf(1, { httpPath: '/' }));
  t.is(health.isUp('app'), undefined);
  await answer(); // of the watch before
  await answer();
  t.is(health.isUp('app'), true);
  health.watch(mapOf(2));
  t.is(health.isUp('app'), undefined);
  health.watch(new Map());
  t.deepEqual(health.results(), []);
});

test('AppHealth - leaves an app alone that is not to be checked', (t) => {
  const health = new AppHealth({
    logger: createLogger({ program: 'test', write: () => undefined }),
    onChange: () => {
      t.fail('nothing is known');
    },
    check: () => {
      t.fail('nothing is checked');
      return Promise.resolve(undefined);
    },
  });
  const target = parseAppArguments(['app=tcp://127.0.0.1:1']).get('app')?.target;
  if (target) health.watch(new Map([['app', { target, check: null }]]));
  t.deepEqual(health.results(), []);
});
