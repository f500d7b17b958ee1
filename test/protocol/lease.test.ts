import test from 'ava';
import fc from 'fast-check';
import { compareSequence, Lease, leaseLengthMs, type Sequence } from '../../protocol/lease.ts';

const sequence = fc.tuple(fc.nat({ max: 3 }), fc.nat({ max: 5 }));
const anySequence = fc.tuple(fc.maxSafeNat(), fc.maxSafeNat());

test('compareSequence - orders by fencing number, then by counter', (t) => {
  fc.assert(
    fc.property(anySequence, anySequence, (a, b) => {
      const wide = ([fence, counter]: Sequence) => (BigInt(fence) << 53n) + BigInt(counter);
      const difference = wide(a) - wide(b);
      t.is(Math.sign(compareSequence(a, b)), difference > 0n ? 1 : difference < 0n ? -1 : 0);
    }),
  );
});

test('leaseLengthMs - is three intervals and never under five seconds', (t) => {
  t.is(leaseLengthMs(1_000), 5_000);
  t.is(leaseLengthMs(1_667), 5_001);
  t.is(leaseLengthMs(20_000), 60_000);
});

test('Lease - is live until the very millisecond of its end, and then never again', (t) => {
  const lease = new Lease({ sequence: [1, 1], untilMs: 1_000 });
  t.true(lease.isLive(999));
  t.false(lease.isLive(1_000));
  t.false(lease.isLive(0)); // control time set back
  t.false(lease.renew([1, 2], 9_000, 0));
  t.false(lease.isLive(0));
});

test('Lease - a higher sequence counts, also when it shortens; a lower or equal one never does', (t) => {
  const lease = new Lease({ sequence: [2, 5], untilMs: 1_000 });
  t.false(lease.renew([2, 5], 9_000, 0));
  t.false(lease.renew([2, 4], 9_000, 0));
  t.false(lease.renew([1, 99], 9_000, 0));
  t.is(lease.untilMs, 1_000);
  t.true(lease.renew([2, 6], 500, 0));
  t.is(lease.untilMs, 500);
  t.true(lease.renew([3, 0], 2_000, 0));
  t.deepEqual(lease.sequence, [3, 0]);
  t.true(lease.renew([3, 1], 10, 20)); // it ends at once
  t.false(lease.isLive(20));
});

test('Lease - a time that is no number ends it', (t) => {
  const lease = new Lease({ sequence: [1, 1], untilMs: 1_000 });
  t.false(lease.isLive(NaN));
  t.false(lease.isLive(0));
  t.false(new Lease({ sequence: [1, 1], untilMs: NaN }).isLive(0));
});

test('Lease - over any history it is live only under the last decision that counted', (t) => {
  const event = fc.oneof(
    fc.record({ kind: fc.constant('tick' as const), byMs: fc.integer({ min: -40, max: 60 }) }),
    fc.record({ kind: fc.constant('renew' as const), sequence, untilMs: fc.nat({ max: 300 }) }),
  );
  fc.assert(
    fc.property(
      sequence,
      fc.nat({ max: 200 }),
      fc.array(event, { maxLength: 40 }),
      (first, until, events) => {
        const lease = new Lease({ sequence: first, untilMs: until });
        // The slow twin keeps everything that ever arrived in time and judges afresh.
        const counted: { sequence: Sequence; untilMs: number }[] = [
          { sequence: first, untilMs: until },
        ];
        const latest = () =>
          counted.reduce((a, b) => (compareSequence(b.sequence, a.sequence) > 0 ? b : a));
        let nowMs = 0;
        let hasEnded = false;
        for (const now of events) {
          if (now.kind === 'tick') nowMs = Math.max(0, nowMs + now.byMs);
          hasEnded ||= nowMs >= latest().untilMs;
          if (now.kind === 'renew') {
            const counts =
              !hasEnded && counted.every((old) => compareSequence(now.sequence, old.sequence) > 0);
            t.is(lease.renew(now.sequence, now.untilMs, nowMs), counts);
            if (counts) counted.push(now);
            hasEnded ||= nowMs >= latest().untilMs;
          }
          t.is(lease.isLive(nowMs), !hasEnded);
          t.is(lease.untilMs, latest().untilMs);
        }
      },
    ),
    { numRuns: 500 },
  );
});
