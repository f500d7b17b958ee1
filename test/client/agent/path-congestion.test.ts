import test from 'ava';
import { PathCongestion } from '../../../client/agent/path-congestion.ts';

const end = (stuckMs: number, roundTripMs = 20) => ({ stuckMs: () => stuckMs, roundTripMs });

test('PathCongestion - gives up a path on which something is stuck while renewals are late, none that is young, long or moves', (t) => {
  const isDue = (
    stuckMs: number,
    { roundTripMs = 20, overdueMs = 1_000, sinceMs = 0 } = {},
  ): boolean =>
    new PathCongestion().isDue({
      endpoint: end(stuckMs, roundTripMs),
      overdueMs,
      sinceMs,
      nowMs: 100_000,
    });
  t.true(isDue(3_000));
  t.false(isDue(2_500));
  t.false(isDue(0));
  t.false(isDue(3_000, { overdueMs: 999 }), 'the control channel gets through');
  t.false(isDue(3_000, { roundTripMs: 700 }), 'a path of long round trips');
  t.true(isDue(5_400, { roundTripMs: 700 }));
  t.false(isDue(3_000, { sinceMs: 95_000 }), 'a young path');
});

test('PathCongestion - gives paths up ever more rarely', (t) => {
  const congestion = new PathCongestion();
  const cuts: number[] = [];
  const signs = { endpoint: end(60_000), overdueMs: 5_000, sinceMs: 0 };
  for (let nowMs = 10_000; nowMs < 1_000_000; nowMs += 250) {
    if (congestion.isDue({ ...signs, nowMs })) cuts.push(nowMs);
  }
  t.deepEqual(
    cuts.slice(1).map((atMs, index) => atMs - (cuts[index] ?? 0)),
    [20_000, 40_000, 80_000, 160_000, 320_000, 320_000],
  );
});
