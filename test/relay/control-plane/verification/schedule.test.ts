import test from 'ava';
import { VerificationSchedule } from '../../../../relay/control-plane/verification/schedule.ts';

const startMs = 1_000_000;

test('takeDue - a tunnel comes up after its interval ± 25 % and then again and again', (t) => {
  for (const [random, partOfInterval] of [
    [0, 0.75],
    [0.5, 1],
    [0.999_999, 1.25],
  ] as const) {
    const schedule = new VerificationSchedule(() => random);
    schedule.set('a', 20_000, Infinity, startMs);
    const firstMs = startMs + 20_000 * partOfInterval;
    t.deepEqual(schedule.takeDue(firstMs - 50, 10), []);
    t.deepEqual(schedule.takeDue(firstMs, 10), ['a']);
    t.deepEqual(schedule.takeDue(firstMs, 10), []);
    t.deepEqual(schedule.takeDue(firstMs + 20_000 * partOfInterval, 10), ['a']);
  }
});

test('takeDue - a known end before the next tick is a tick of its own', (t) => {
  const schedule = new VerificationSchedule(() => 0.5);
  schedule.set('a', 20_000, startMs + 7_000, startMs);
  t.deepEqual(schedule.takeDue(startMs + 6_999, 10), []);
  t.deepEqual(schedule.takeDue(startMs + 7_000, 10), ['a']);
  // The end has passed; it must not come up at every look.
  t.deepEqual(schedule.takeDue(startMs + 7_001, 10), []);
  t.is(schedule.nextAtMs(), startMs + 27_000);
});

test('takeDue - hands out the oldest first and no more than asked for', (t) => {
  const schedule = new VerificationSchedule(() => 0.5);
  for (const [name, intervalMs] of [
    ['slow', 20_000],
    ['fast', 1_000],
    ['middle', 5_000],
  ] as const) {
    schedule.set(name, intervalMs, Infinity, startMs);
  }
  t.deepEqual(schedule.takeDue(startMs + 60_000, 2), ['fast', 'middle']);
  t.deepEqual(schedule.takeDue(startMs + 60_000, 2), ['slow']);
});

test('hasten - makes a tunnel due at once, and never later than it was', (t) => {
  const schedule = new VerificationSchedule(() => 0.5);
  schedule.set('a', 20_000, Infinity, startMs);
  schedule.hasten('a', startMs + 100);
  t.deepEqual(schedule.takeDue(startMs + 100, 10), ['a']);
  schedule.hasten('a', startMs + 90_000);
  t.deepEqual(schedule.takeDue(startMs + 20_100, 10), ['a']);
});

test('delete - a tunnel that ended never comes up', (t) => {
  const schedule = new VerificationSchedule(() => 0.5);
  schedule.set('a', 1_000, Infinity, startMs);
  schedule.hasten('a', startMs);
  schedule.delete('a');
  t.deepEqual(schedule.takeDue(startMs + 60_000, 10), []);
  t.is(schedule.nextAtMs(), undefined);
  t.is(schedule.size, 0);
});

test('postpone - plans a tunnel that was due at once an interval ahead, and no later than its known end', (t) => {
  const schedule = new VerificationSchedule(() => 0.5);
  schedule.set('a', 20_000, Infinity, startMs);
  schedule.set('b', 20_000, startMs + 5_000, startMs);
  schedule.hasten('a', startMs);
  schedule.hasten('b', startMs);
  schedule.postpone('a', startMs);
  schedule.postpone('b', startMs);
  schedule.postpone('unknown', startMs);
  t.deepEqual(schedule.takeDue(startMs, 10), []);
  t.deepEqual(schedule.takeDue(startMs + 5_000, 10), ['b']);
  t.deepEqual(schedule.takeDue(startMs + 20_000, 1), ['a']);
});

test('takeDue - of many tunnels each is verified once an interval, spread over time', (t) => {
  let seed = 1;
  const schedule = new VerificationSchedule(() => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  });
  const count = 2_000;
  for (let i = 0; i < count; i++) schedule.set(`t${String(i)}`, 20_000, Infinity, startMs);
  const lastSeen = new Map<string, number>();
  let most = 0;
  for (let nowMs = startMs; nowMs < startMs + 200_000; nowMs += 200) {
    const due = schedule.takeDue(nowMs, count);
    if (nowMs > startMs + 60_000) most = Math.max(most, due.length);
    for (const id of due) {
      const seenMs = lastSeen.get(id);
      if (seenMs !== undefined) {
        t.true(nowMs - seenMs >= 14_800 && nowMs - seenMs <= 25_200);
      }
      lastSeen.set(id, nowMs);
    }
  }
  t.is(lastSeen.size, count);
  t.true(most < count / 20, `up to ${String(most)} at once`);
});
