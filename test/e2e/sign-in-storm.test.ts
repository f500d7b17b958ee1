import test from 'ava';
import { runStorm } from '../support/sign-in-storm.ts';

test('sign-in storm - strangers who guess all at once keep no owner out, and no tunnel from its bytes', async (t) => {
  t.timeout(60_000);
  const figures = await runStorm({ attempts: 300, isGuessDear: false, usualMs: 0 });
  const { answers, control, owner, flow } = figures;
  t.deepEqual(
    Object.keys(answers).filter((status) => !['0', '403', '429'].includes(status)),
    [],
    JSON.stringify(answers),
  );
  t.true((answers[429] ?? 0) > 0);
  t.is(owner.exitCode, 0, owner.stderr);
  t.true(flow.isOpen);
  const late = [control.p50Ms, control.p99Ms, control.maxMs].map((ms) => ms.toFixed(1));
  t.log(`300 attempts: ${JSON.stringify(answers)}`);
  t.log(`control plane's event loop late by ${late.join(', ')} ms (50 %, 99 %, longest)`);
});
