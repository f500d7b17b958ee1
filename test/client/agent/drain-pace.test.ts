import test from 'ava';
import { DrainPace } from '../../../client/agent/drain-pace.ts';

/** The longest that each of the delays may be. */
function ceilings(pace: DrainPace, lastedMs: readonly number[]): number[] {
  return lastedMs.map((each) => pace.next(each));
}

const longest = (attempt: number, { baseMs = 0, capMs = Infinity } = {}): number =>
  Math.min(capMs, baseMs * 2 ** attempt);

test('DrainPace - leaves a relay that drains within a second', (t) => {
  const delayMs = new DrainPace().next(0);
  t.true(delayMs >= 0 && delayMs <= 1_000);
});

test('DrainPace - relays that say so of every path are left ever more slowly', (t) => {
  const pace = new DrainPace(longest);
  t.deepEqual(
    ceilings(
      pace,
      Array.from({ length: 7 }, () => 0),
    ),
    [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000],
  );
});

test('DrainPace - a path that lasted starts anew', (t) => {
  t.deepEqual(ceilings(new DrainPace(longest), [0, 0, 60_000, 0]), [1_000, 2_000, 1_000, 2_000]);
});
