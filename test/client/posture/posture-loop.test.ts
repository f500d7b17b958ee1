import { EventEmitter, once } from 'node:events';
import test from 'ava';
import type { CollectOptions } from '../../../client/posture/collect.ts';
import { PostureLoop, type CollectedPosture } from '../../../client/posture/posture-loop.ts';
import type { CheckResult, DevicePosture, ExtraCheck } from '../../../protocol/index.ts';

const hourMs = 3_600_000;

const factsWith = (firewall: CheckResult): DevicePosture => ({
  platform: 'linux',
  osVersion: '12',
  clientVersion: '1',
  checks: [['firewall', firewall, 'told']],
});

/** A loop whose collections end when the test says so. */
class LoopRig {
  readonly asked: CollectOptions[] = [];
  readonly told: CollectedPosture[] = [];
  readonly loop: PostureLoop;
  readonly #pending: ((facts: DevicePosture) => void)[] = [];
  readonly #events = new EventEmitter();
  #onNetwork: (() => void) | undefined;

  constructor(everyMs = hourMs) {
    this.loop = new PostureLoop({
      everyMs,
      extraChecks: [],
      collect: (options) => {
        this.asked.push(options);
        this.#events.emit('asked');
        return new Promise((resolve) => this.#pending.push(resolve));
      },
      onFacts: (collected) => {
        this.told.push(collected);
      },
      network: {
        subscribe: (onEvent) => {
          this.#onNetwork = onEvent;
          return () => {
            this.#onNetwork = undefined;
          };
        },
      },
    });
  }

  get isSubscribed(): boolean {
    return this.#onNetwork !== undefined;
  }

  get pending(): number {
    return this.#pending.length;
  }

  /** The machine woke, or has other addresses. */
  stir(): void {
    this.#onNetwork?.();
  }

  async finish(firewall: CheckResult = 'on'): Promise<void> {
    this.#pending.shift()?.(factsWith(firewall));
    await new Promise(setImmediate);
  }

  async nextAsked(): Promise<void> {
    await once(this.#events, 'asked');
  }
}

test('PostureLoop - collects at once, afresh, and tells what has changed', async (t) => {
  const rig = new LoopRig();
  rig.loop.start();
  rig.loop.start();
  t.is(rig.pending, 1);
  t.true(rig.asked[0]?.isFresh);
  await rig.finish('on');
  for (const firewall of ['on', 'off', 'off'] as const) {
    rig.loop.collectNow();
    await rig.finish(firewall);
  }
  t.deepEqual(
    rig.told.map(({ isChanged }) => isChanged),
    [true, false, true, false],
  );
  t.true(rig.told.every(({ tookMs }) => tookMs >= 0));
  rig.loop.stop();
});

test('PostureLoop - collects again after its interval, believing what it may', async (t) => {
  const rig = new LoopRig(0); // as often as it can
  const keepAlive = setInterval(() => undefined, 1_000);
  t.teardown(() => {
    clearInterval(keepAlive);
  });
  rig.loop.start();
  await rig.finish();
  t.is(rig.pending, 0, 'an interval of nothing is no busy loop');
  await rig.nextAsked();
  t.is(rig.told.length, 1);
  t.false(rig.asked[1]?.isFresh);
  rig.loop.stop();
});

test('PostureLoop - collects when the machine wakes or its network changes', async (t) => {
  const rig = new LoopRig();
  rig.loop.start();
  await rig.finish();
  rig.stir();
  t.is(rig.asked.length, 2);
  t.true(rig.asked[1]?.isFresh);
  rig.loop.stop();
});

test('PostureLoop - never collects twice at once; who asks meanwhile has one more behind it', async (t) => {
  const rig = new LoopRig();
  rig.loop.start();
  for (let i = 0; i < 5; i += 1) rig.stir();
  t.is(rig.asked.length, 1);
  await rig.finish('off');
  t.is(rig.asked.length, 2);
  t.is(rig.told.length, 1);
  await rig.finish('on');
  t.is(rig.asked.length, 2);
  t.deepEqual(
    rig.told.map(({ facts }) => facts),
    [factsWith('off'), factsWith('on')],
  );
  rig.loop.stop();
});

test('PostureLoop - takes other checks and another interval at once', async (t) => {
  const rig = new LoopRig();
  const extraChecks: ExtraCheck[] = [{ kind: 'process', id: 'edr', name: 'edr' }];
  rig.loop.start();
  rig.loop.reschedule({ everyMs: hourMs, extraChecks });
  t.true(rig.asked[0]?.signal?.aborted);
  await rig.finish();
  t.is(rig.told.length, 0, 'facts without them are not told');
  await rig.finish();
  t.is(rig.told.length, 1);
  t.deepEqual(
    rig.asked.map((options) => options.extraChecks),
    [[], extraChecks],
  );
  rig.loop.stop();
});

test('PostureLoop - says nothing after it was stopped, and lets go of what it watched', async (t) => {
  const rig = new LoopRig();
  rig.loop.start();
  rig.loop.stop();
  rig.loop.stop();
  t.true(rig.asked[0]?.signal?.aborted);
  t.false(rig.isSubscribed);
  await rig.finish();
  rig.loop.collectNow();
  t.is(rig.asked.length, 1);
  t.deepEqual(rig.told, []);
});

test('PostureLoop - can be started again, also while the last collection still ends', async (t) => {
  const rig = new LoopRig();
  rig.loop.start();
  await rig.finish();
  rig.loop.stop();
  rig.loop.start();
  rig.loop.stop();
  rig.loop.start();
  t.is(rig.pending, 1);
  await rig.finish('off');
  t.is(rig.told.length, 1, 'what was cut short is not told');
  await rig.finish('on');
  t.is(rig.asked.length, 3);
  t.deepEqual(
    rig.told.map(({ isChanged }) => isChanged),
    [true, true],
  );
  rig.loop.stop();
});
