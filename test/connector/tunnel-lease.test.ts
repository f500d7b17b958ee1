import test from 'ava';
import { ZtnaError, type Sequence } from '../../protocol/index.ts';
import { maxLeaseMs } from '../../connector/limits.ts';
import { TunnelLease } from '../../connector/tunnel-lease.ts';

class FakeClock {
  value: number | undefined = 1_000;
  readonly nowMs = () => this.value;
}

function lease(clock: FakeClock, untilMs = 6_000, sequence: Sequence = [1, 1]): TunnelLease {
  return new TunnelLease({ sequence, untilMs }, clock.nowMs);
}

test('TunnelLease - is live to the millisecond before its end and never after', (t) => {
  const clock = new FakeClock();
  const one = lease(clock);
  clock.value = 5_999;
  t.true(one.isLive());
  clock.value = 6_000;
  t.false(one.isLive());
  clock.value = 1_000;
  t.false(one.isLive());
});

test('TunnelLease - a renewal after the end does not reopen it', (t) => {
  const clock = new FakeClock();
  const one = lease(clock);
  clock.value = 6_000;
  t.false(one.renew([1, 2], 20_000));
  t.false(one.isLive());
});

test('TunnelLease - only a higher sequence counts, also when it shortens', (t) => {
  const clock = new FakeClock();
  const one = lease(clock, 6_000, [2, 5]);
  t.false(one.renew([2, 5], 20_000));
  t.false(one.renew([1, 9], 20_000));
  t.true(one.renew([2, 6], 20_000));
  t.true(one.renew([3, 0], 2_000));
  t.is(one.untilMs, 2_000);
});

test('TunnelLease - lets nothing pass while control time is unknown', (t) => {
  const clock = new FakeClock();
  const one = lease(clock);
  clock.value = undefined;
  t.false(one.isLive());
  t.false(one.renew([1, 2], 20_000));
});

test('TunnelLease - is not made while control time is unknown, nor from one that has ended', (t) => {
  const clock = new FakeClock();
  t.is(
    t.throws(() => lease(clock, 1_000), { instanceOf: ZtnaError }).code,
    'ERR_TUNNEL_LEASE_EXPIRED',
  );
  clock.value = undefined;
  t.is(t.throws(() => lease(clock), { instanceOf: ZtnaError }).code, 'ERR_RELAY_UNAVAILABLE');
});

test('TunnelLease - believes no end further ahead than the longest lease', (t) => {
  const clock = new FakeClock();
  const one = lease(clock, 1_000 + maxLeaseMs + 1);
  t.is(one.untilMs, 1_000 + maxLeaseMs);
  clock.value = 3_000;
  t.true(one.renew([1, 2], Number.MAX_SAFE_INTEGER));
  t.is(one.untilMs, 3_000 + maxLeaseMs);
});
