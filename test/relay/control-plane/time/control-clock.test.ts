import test from 'ava';
import { markAheadMs, ServerClock } from '../../../../relay/control-plane/time/control-clock.ts';

function clockAt(wallMs: number, markMs = 0) {
  const readings = { wallMs, monotonicMs: 0 };
  return { readings, clock: new ServerClock(markMs, () => ({ ...readings })) };
}

test('nowMs - follows the machine, also when it jumps ahead', (t) => {
  const { readings, clock } = clockAt(1_000_000);
  readings.wallMs += 3_600_000;
  readings.monotonicMs += 10;
  t.is(clock.nowMs(), 4_600_000);
});

test('nowMs - never falls and never stands still when the machine is set back', (t) => {
  const { readings, clock } = clockAt(1_000_000);
  let lastMs = clock.nowMs();
  readings.wallMs -= 600_000;
  for (let i = 0; i < 100; i++) {
    readings.wallMs += 100;
    readings.monotonicMs += 100;
    const nowMs = clock.nowMs();
    t.true(nowMs > lastMs);
    lastMs = nowMs;
  }
  t.true(lastMs <= 1_000_000 + 10_000);
});

test('ServerClock - starts no earlier than the mark that a crash left behind', (t) => {
  const { clock } = clockAt(1_000_000, 1_004_000);
  t.is(clock.nowMs(), 1_004_000);
});

test('dueMarkMs - a mark stays ahead of everything that was given out', (t) => {
  const { readings, clock } = clockAt(1_000_000);
  let markMs = clock.dueMarkMs() ?? 0;
  t.is(markMs, 1_000_000 + markAheadMs);
  clock.marked(markMs);
  t.is(clock.dueMarkMs(), undefined);
  for (let i = 0; i < 100; i++) {
    readings.wallMs += 1_000;
    readings.monotonicMs += 1_000;
    const due = clock.dueMarkMs();
    if (due !== undefined) {
      markMs = due;
      clock.marked(due);
    }
    t.true(markMs > clock.nowMs());
  }
});
