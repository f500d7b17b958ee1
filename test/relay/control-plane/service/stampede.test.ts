import anyTest, { type TestFn } from 'ava';
import { ZtnaError } from '../../../../protocol/index.ts';
import { defaultLimits } from '../../../../relay/control-plane/settings.ts';
import { Rig } from './rig.ts';

interface Context {
  rig: Rig;
}
const test = anyTest as TestFn<Context>;

test.before('a deployment', async (t) => {
  t.context.rig = await Rig.start({
    limits: { ...defaultLimits, greetingsAtOnce: 2, greetingsWaiting: 2 },
  });
});

test.after.always('stop', async (t) => {
  await t.context.rig.stop();
});

test('hello - devices are greeted in turn, and more than may wait are sent away, to come again', async (t) => {
  const { rig } = t.context;
  const { identity, channel } = await rig.device('alice');
  channel.close();
  // Greeting waits for the store, which is held.
  const held = Promise.withResolvers<undefined>();
  const holding = rig.plane.services.store.write(() => held.promise);
  const dials = Array.from({ length: 6 }, () => rig.connectDevice(identity));
  const outcomes = dials.map(async (dial) =>
    dial.then(
      () => 'welcome',
      (error: unknown) => (error instanceof ZtnaError ? error.code : String(error)),
    ),
  );
  const refused = await firstOf(outcomes, 2);
  t.deepEqual(
    refused,
    Array.from({ length: 2 }, () => 'ERR_LIMIT_RATE'),
  );
  held.resolve(undefined);
  await holding;
  const all = await Promise.all(outcomes);
  t.is(all.filter((outcome) => outcome === 'welcome').length, 4);
  t.truthy(await rig.connectDevice(identity));
});

/** The first so many to settle. */
async function firstOf<T>(promises: readonly Promise<T>[], count: number): Promise<T[]> {
  const first: T[] = [];
  return new Promise((resolve, reject) => {
    for (const promise of promises) {
      promise.then((value) => {
        first.push(value);
        if (first.length === count) resolve([...first]);
      }, reject);
    }
  });
}
