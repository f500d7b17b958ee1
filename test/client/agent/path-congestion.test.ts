import test from 'ava';
import { PathCongestion } from '../../../client/agent/path-congestion.ts';

const end = (stuckMs: number, roundTripMs = 20) => ({ stuckMs: () => stuckMs, roundTripMs });

test('PathCongestion - gives up a path on which something is stuck, none that is young, slow by nature or moves', (t) => {
  const isDue = (stuckMs: number, roundTripMs: number, pathSinceMs = 0): boolean =>
    new PathCongestion().isDue(end(stuckMs, roundTripMs), pathSinceMs, 100_000);
  t.true(isDue(3_000, 20));
  t.false(isDue(2_500, 20));
  t.false(isDue(0, 20));
  t.false(isDue(3_000, 700), 'a path of long round trips');
  t.true(isDue(5_400, 700));
  t.false(isDue(3_000, 20, 95_000), 'a young path');
});

test('PathCongestion - gives paths up ever more rarely', (t) => {
  const congestion = new PathCongestion();
  const cuts: number[] = [];
  for (let nowMs = 10_000; nowMs < 1_000_000; nowMs += 250) {
    if (congestion.isDue(end(60_000), 0, nowMs)) cuts.push(nowMs);
  }
  t.deepEqual(
    cuts.slice(1).map((atMs, index) => atMs - (cuts[index] ?? 0)),
    [20_000, 40_000, 80_000, 160_000, 320_000, 320_000],
  );
});
