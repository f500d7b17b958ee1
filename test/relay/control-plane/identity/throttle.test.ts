import test from 'ava';
import {
  SignInThrottle,
  type SignInSource,
} from '../../../../relay/control-plane/identity/index.ts';
import { TestClock } from '../fixture.ts';

const sizes = {
  accountFromSource: { burst: 3, refillMs: 1_000 },
  otpFromSource: { burst: 2, refillMs: 10_000 },
  address: { burst: 10, refillMs: 1_000 },
  accountFromUnknown: { burst: 6, refillMs: 1_000 },
  workFromSource: { burst: 5, refillMs: 2_000 },
  workFromKnown: { burst: 8, refillMs: 2_000 },
};

const from = (changes: Partial<SignInSource> = {}): SignInSource => ({
  account: 'anna',
  address: '192.0.2.1',
  device: null,
  isKnown: false,
  ...changes,
});

const limited = { code: 'ERR_LIMIT_RATE' };

function open() {
  const clock = new TestClock();
  return { clock, throttle: new SignInThrottle(clock, sizes) };
}

test('begin - lets a few failures pass, then one for each refill', (t) => {
  const { clock, throttle } = open();
  for (let i = 0; i < 3; i++) throttle.begin(from()).fail();
  const error = t.throws(() => throttle.begin(from()), limited);
  t.like(error, { hint: 'wait 1 s, then try again' });
  clock.advance(1_000);
  throttle.begin(from()).fail();
  t.throws(() => throttle.begin(from()), limited);
});

test('begin - counts tries that are still running', (t) => {
  const { throttle } = open();
  const running = [throttle.begin(from()), throttle.begin(from()), throttle.begin(from())];
  t.throws(() => throttle.begin(from()), limited);
  running[0]?.succeed();
  running[0]?.succeed(); // gives back once
  throttle.begin(from());
  t.throws(() => throttle.begin(from()), limited);
});

test('begin - counts no success as a guess', (t) => {
  const { throttle } = open();
  for (let i = 0; i < 100; i++) {
    t.notThrows(() => throttle.begin(from({ account: `user${String(i % 20)}` })).succeed());
  }
});

test('begin - counts the work of right passwords, by account and source, and none for one-time passwords', (t) => {
  const { clock, throttle } = open();
  const known = from({ device: 'dev_own', isKnown: true });
  for (let i = 0; i < 5; i++) throttle.begin(known).succeed();
  t.like(
    t.throws(() => throttle.begin(known), limited),
    { hint: 'wait 2 s, then try again' },
  );
  t.notThrows(() => throttle.begin(known, 'otp').succeed());
  t.notThrows(() => throttle.begin(from({ device: 'dev_other', isKnown: true })).succeed());
  t.notThrows(() => throttle.begin(from({ device: 'dev_own', account: 'ben' })).succeed());
  clock.advance(2_000);
  throttle.begin(known).succeed();
  t.throws(() => throttle.begin(known), limited);
});

test('begin - counts the work of one account from all its known browsers together, and nobody else’s', (t) => {
  const { throttle } = open();
  const browser = (id: number) => from({ device: `browser ${String(id)}`, isKnown: true });
  for (let i = 0; i < 8; i++) throttle.begin(browser(i)).succeed();
  t.throws(() => throttle.begin(browser(8)), limited);
  t.notThrows(() => throttle.begin({ ...browser(9), account: 'ben' }).succeed());
});

test('begin - slows one address that tries many accounts', (t) => {
  const { throttle } = open();
  for (let i = 0; i < 10; i++) throttle.begin(from({ account: `user${String(i)}` })).fail();
  t.throws(() => throttle.begin(from({ account: 'one-more' })), limited);
  t.notThrows(() => throttle.begin(from({ address: '198.51.100.7' })));
});

test('begin - slows many addresses that try one account, and lets its owner in meanwhile', (t) => {
  const { throttle } = open();
  for (let i = 0; i < 6; i++) throttle.begin(from({ address: `203.0.113.${String(i)}` })).fail();
  t.throws(() => throttle.begin(from({ address: '203.0.113.99' })), limited);
  const owner = from({ address: '203.0.113.1', device: 'dev_own', isKnown: true });
  t.notThrows(() => throttle.begin(owner).succeed());
});

test('begin - keeps devices behind one address apart', (t) => {
  const { throttle } = open();
  for (let i = 0; i < 3; i++) throttle.begin(from({ device: 'dev_other' })).fail();
  t.throws(() => throttle.begin(from({ device: 'dev_other' })), limited);
  t.notThrows(() => throttle.begin(from({ device: 'dev_own', isKnown: true })).succeed());
});

test('begin - counts one-time passwords by themselves', (t) => {
  const { throttle } = open();
  const known = from({ device: 'dev_own', isKnown: true });
  for (let i = 0; i < 2; i++) throttle.begin(known, 'otp').fail();
  t.throws(() => throttle.begin(known, 'otp'), limited);
  t.notThrows(() => throttle.begin(known));
});
