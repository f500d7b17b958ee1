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

test('takeDue - tunnels of a group come up together once they are due about the same time', (t) => {
  let random = 0;
  const schedule = new VerificationSchedule(() => random);
  schedule.set('a', 20_000, Infinity, startMs, 'laptop'); // due at 15 s
  random = 0.2;
  schedule.set('b', 20_000, Infinity, startMs, 'laptop'); // at 17 s
  random = 0.999_999;
  schedule.set('late', 20_000, Infinity, startMs, 'laptop'); // at 25 s
  schedule.set('other', 20_000, Infinity, startMs, 'phone');
  t.deepEqual(schedule.takeDue(startMs + 15_000, 10), ['a', 'b']);
  random = 0.5;
  t.deepEqual(schedule.takeDue(startMs + 25_000, 10).sort(), ['late', 'other']);
  schedule.delete('b');
  schedule.delete('other');
  t.deepEqual(schedule.takeDue(startMs + 40_000, 10), ['a', 'late']);
  t.is(schedule.takeDue(startMs + 60_000, 1).length, 1); // no more than asked for
  t.is(schedule.takeDue(startMs + 60_000, 9).length, 1);
});

test('takeDue - tunnels of a group stay together, and groups drift apart', (t) => {
  let seed = 7;
  const schedule = new VerificationSchedule(() => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  });
  const groups = 200;
  for (let at = 0; at < groups * 10; at++) {
    const group = `device-${String(at % groups)}`;
    schedule.set(`t${String(at)}`, 20_000, Infinity, startMs + at, group);
  }
  let calls = 0;
  let most = 0;
  let verified = 0;
  for (let nowMs = startMs + 200_000; nowMs < startMs + 400_000; nowMs += 200) {
    const due = schedule.takeDue(nowMs, groups * 10);
    if (nowMs < startMs + 260_000) continue; // they come together
    calls += new Set(due.map((id) => Number(id.slice(1)) % groups)).size;
    verified += due.length;
    most = Math.max(most, due.length);
  }
  t.is(verified, calls * 10);
  t.true(most < groups, `up to ${String(most)} at once`);
});

test('confirm - a known end is not missed, and what was hastened meanwhile stays due', (t) => {
  const schedule = new VerificationSchedule(() => 0.5);
  schedule.set('a', 20_000, Infinity, startMs);
  t.deepEqual(schedule.takeDue(startMs + 20_000, 10), ['a']);
  schedule.confirm('a', startMs + 26_000, startMs + 20_100);
  t.is(schedule.nextAtMs(), startMs + 26_000);
  schedule.confirm('a', Infinity, startMs + 20_200);
  t.is(schedule.nextAtMs(), startMs + 40_000);
  schedule.hasten('a', startMs + 20_300);
  schedule.confirm('a', Infinity, startMs + 20_400); // by facts from before
  t.deepEqual(schedule.takeDue(startMs + 20_400, 10), ['a']);
});
