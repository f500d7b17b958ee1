import test from 'ava';
import type { CollectOptions } from '../../../client/posture/collect.ts';
import { MachinePosture } from '../../../client/posture/machine-posture.ts';
import type { DevicePosture, ExtraCheck } from '../../../protocol/index.ts';

const facts: DevicePosture = { platform: 'linux', osVersion: '', clientVersion: '1', checks: [] };
const edr: ExtraCheck = { kind: 'process', id: 'edr', name: 'edr' };
const everyMs = 3_600_000;

interface Asked {
  readonly options: CollectOptions;
  readonly finish: () => Promise<void>;
}

function create(): { readonly posture: MachinePosture; readonly asked: Asked[] } {
  const asked: Asked[] = [];
  const posture = new MachinePosture({
    network: { subscribe: () => () => undefined },
    collector: {
      collect: (options) =>
        new Promise((resolve) => {
          const finish = async (): Promise<void> => {
            resolve(facts);
            await new Promise(setImmediate);
          };
          asked.push({ options: options ?? {}, finish });
        }),
    },
  });
  return { posture, asked };
}

test('MachinePosture - tells whoever asked last, of the checks that were asked for last', async (t) => {
  const { posture, asked } = create();
  const told: string[] = [];
  t.deepEqual(posture.extraChecks, []);
  posture.start({ everyMs, checks: [], onFacts: () => told.push('first') });
  posture.start({ everyMs, checks: [edr], onFacts: () => told.push('second') });
  t.true(asked[0]?.options.signal?.aborted, 'what goes on without the new checks is cut short');
  await asked[0]?.finish();
  t.deepEqual(told, []);
  await asked[1]?.finish();
  t.deepEqual(told, ['second']);
  t.deepEqual(asked[1]?.options.extraChecks, [edr]);
  t.deepEqual(posture.extraChecks, [edr]);
  posture.stop();
});

test('MachinePosture - tells nothing after it was stopped, and can be asked again', async (t) => {
  const { posture, asked } = create();
  const told: string[] = [];
  const onFacts = () => told.push('told');
  posture.start({ everyMs, checks: [], onFacts });
  posture.stop();
  posture.stop();
  await asked[0]?.finish();
  t.deepEqual(told, []);
  posture.start({ everyMs, checks: [], onFacts });
  await asked[1]?.finish();
  t.deepEqual(told, ['told']);
  posture.stop();
});
