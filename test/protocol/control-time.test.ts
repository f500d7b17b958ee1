import test from 'ava';
import fc from 'fast-check';
import {
  ControlTime,
  maxTimeRoundTripMs,
  timeSchema,
  type LocalClocks,
} from '../../protocol/control-time.ts';
import { rawPublicKey, signStatement, verifyingKey } from '../../protocol/statement.ts';
import { newSigningKey } from '../support/authority.ts';

const key = newSigningKey();
const keys = [verifyingKey(rawPublicKey(key.privateKey))];
const nonce = Buffer.alloc(16, 1).toString('base64url');
const answer = (timeMs: number, forNonce = nonce) =>
  signStatement('time', timeSchema, { nonce: forNonce, timeMs }, key);
const at = (monotonicMs: number, wallMs = monotonicMs): LocalClocks => ({ monotonicMs, wallMs });

function learned(timeMs: number, sentAt: LocalClocks, receivedAt: LocalClocks): ControlTime {
  const time = new ControlTime();
  time.learn(answer(timeMs), { nonce, sentAt, receivedAt }, keys);
  return time;
}

test('ControlTime - knows no time before the first exchange', (t) => {
  t.is(new ControlTime().nowMs(at(0)), undefined);
});

test('ControlTime - is the answer and the whole round trip, then advances by the clocks', (t) => {
  const time = learned(50_000, at(100), at(150));
  t.is(time.nowMs(at(150)), 50_050);
  t.is(time.nowMs(at(1_150)), 51_050);
});

test('ControlTime - advances by the faster of the two clocks: neither sleep nor a stepped clock holds it back', (t) => {
  const learnedAt = at(0, 900_000);
  const after = (clocks: LocalClocks) => learned(50_000, learnedAt, learnedAt).nowMs(clocks);
  t.is(after(at(10, 960_000)), 110_000); // the monotonic clock slept
  t.is(after(at(60_000, 300_000)), 110_000); // the wall clock was set back
  t.is(after(at(0, 0)), 50_000); // nothing passed, as far as anybody knows
});

test('ControlTime - a clock set back before a sleep does not hide the sleep', (t) => {
  const time = learned(50_000, at(0, 900_000), at(0, 900_000));
  t.is(time.nowMs(at(1_000, 301_000)), 51_000); // set back by ten minutes
  t.is(time.nowMs(at(1_000, 601_000)), 351_000); // then asleep for five
  t.is(time.nowMs(at(2_000, 602_000)), 352_000);
});

test('ControlTime - fractions of a millisecond are rounded up', (t) => {
  t.is(learned(50_000, at(0.2), at(0.9)).nowMs(at(1.1)), 50_001);
});

test('ControlTime - each exchange anchors it anew, also downwards', (t) => {
  const time = learned(50_000, at(0), at(0));
  t.is(time.nowMs(at(10, 100_000)), 150_000);
  const clocks = at(10, 100_000);
  t.true(time.learn(answer(50_010), { nonce, sentAt: clocks, receivedAt: clocks }, keys));
  t.is(time.nowMs(clocks), 50_010);
});

test('ControlTime - a slow exchange does not count and leaves the estimate as it was', (t) => {
  const time = learned(50_000, at(0), at(0));
  const learn = (receivedAt: LocalClocks) =>
    time.learn(answer(90_000), { nonce, sentAt: at(0), receivedAt }, keys);
  t.false(learn(at(maxTimeRoundTripMs + 1)));
  t.false(learn(at(0, maxTimeRoundTripMs + 1)));
  t.false(learn(at(NaN)));
  t.is(time.nowMs(at(0)), 50_000);
  t.true(learn(at(maxTimeRoundTripMs)));
});

test('ControlTime - an answer to another nonce, by another key or of another kind is refused', (t) => {
  const time = learned(50_000, at(0), at(0));
  const exchange = { nonce, sentAt: at(0), receivedAt: at(0) };
  const refused = { code: 'ERR_STATEMENT_REFUSED' };
  const other = Buffer.alloc(16, 2).toString('base64url');
  t.throws(() => time.learn(answer(1, other), exchange, keys), refused);
  t.throws(() => time.learn(answer(1), exchange, []), refused);
  const stranger = newSigningKey();
  const forged = signStatement('time', timeSchema, { nonce, timeMs: 1 }, stranger);
  t.throws(() => time.learn(forged, exchange, keys), refused);
  const lease = signStatement('lease', timeSchema, { nonce, timeMs: 1 }, key);
  t.throws(() => time.learn(lease, exchange, keys), refused);
  t.is(time.nowMs(at(0)), 50_000);
});

test('ControlTime - it is never behind whatever the local clocks do, and ahead only by a round trip and by steps ahead', (t) => {
  const jumpMs = fc.oneof(fc.constant(0), fc.integer({ min: 100, max: 600_000 }));
  const step = fc.record({
    waitMs: fc.nat({ max: 30_000 }),
    event: fc.constantFrom('none', 'sleep', 'step back', 'step ahead'),
    jumpMs,
    exchange: fc.option(
      fc.record({ thereMs: fc.nat({ max: 1_500 }), backMs: fc.nat({ max: 1_500 }) }),
    ),
  });
  const wallOffset = fc.integer({ min: -600_000, max: 600_000 });
  fc.assert(
    fc.property(wallOffset, fc.array(step, { maxLength: 12 }), (wallOffsetMs, steps) => {
      let trueMs = 1_900_000_000_000;
      let monotonicMs = 5_000;
      let wallMs = trueMs + wallOffsetMs;
      let mostAheadMs = 0;
      const time = new ControlTime();
      const clocks = () => at(monotonicMs, wallMs);
      const pass = (ms: number) => {
        trueMs += ms;
        monotonicMs += ms;
        wallMs += ms;
      };
      for (const { waitMs, event, jumpMs: byMs, exchange } of steps) {
        pass(waitMs);
        if (event === 'sleep') {
          trueMs += byMs;
          wallMs += byMs;
        } else if (event === 'step back') {
          wallMs -= byMs;
        } else if (event === 'step ahead') {
          wallMs += byMs;
          mostAheadMs += byMs;
        }
        time.nowMs(clocks());
        if (exchange) {
          const sentAt = clocks();
          pass(exchange.thereMs);
          const statement = answer(trueMs);
          pass(exchange.backMs);
          const tookMs = exchange.thereMs + exchange.backMs;
          const counted = time.learn(statement, { nonce, sentAt, receivedAt: clocks() }, keys);
          t.is(counted, tookMs <= maxTimeRoundTripMs);
          if (counted) mostAheadMs = tookMs;
        }
        const nowMs = time.nowMs(clocks());
        if (nowMs === undefined) continue;
        t.true(nowMs >= trueMs);
        t.true(nowMs - trueMs <= mostAheadMs);
      }
    }),
    { numRuns: 300 },
  );
});
