import { Secret, TOTP } from 'otpauth';
import ava, { type ExecutionContext } from 'ava';
import {
  beginTotp,
  confirmTotp,
  defaultThrottle,
  preparePassword,
  signIn,
  SignInThrottle,
  startSession,
  type Credentials,
} from '../../../../relay/control-plane/identity/index.ts';
import { ZtnaError } from '../../../../protocol/index.ts';
import { holdNextHash } from '../../../support/cheap-passwords.ts';
import {
  addUser,
  enrolDevice,
  openTestStore,
  startMs,
  TestClock,
  onEveryStore,
} from '../fixture.ts';
import type { User } from '../../../../relay/control-plane/store/index.ts';

const password = 'blue kettle quiet moon';
// Hashing is slow on purpose: one hash serves every test of this file.
const passwordHash = await preparePassword(password, 'anna');

const test = onEveryStore(ava); // after what is awaited: declaring must not be interrupted

const refused = { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' };

async function setUp(t: ExecutionContext, row: Partial<User> = {}) {
  const store = await openTestStore(t);
  const clock = new TestClock();
  const throttle = new SignInThrottle(clock, {
    ...defaultThrottle,
    accountFromSource: { burst: 2, refillMs: 1_000_000 },
  });
  const user = await addUser(store, 'anna', { passwordHash, ...row });
  const attempt = (changes: Partial<Credentials> = {}) =>
    signIn(
      { store, throttle, clock, wallMs: () => clock.nowMs() },
      { user: 'anna', password, otp: null, device: null, address: '192.0.2.1', ...changes },
    );
  return { store, clock, user, attempt };
}

test.serial('signIn - proves a user by the password', async (t) => {
  const { user, attempt } = await setUp(t);
  const { user: found, methods } = await attempt();
  t.is(found.id, user.id);
  t.deepEqual(methods, ['password']);
});

test.serial(
  'signIn - answers unknown, disabled, expired and passwordless users like a wrong password',
  async (t) => {
    const { attempt } = await setUp(t);
    const wrong = await t.throwsAsync(attempt({ password: 'blue kettle quiet sun' }), refused);
    const unknown = await t.throwsAsync(attempt({ user: 'nobody' }), refused);
    t.is(unknown.message, wrong.message);
    for (const row of [
      { disabled: 1 },
      { expiresAtMs: startMs },
      { passwordHash: null },
    ] as const) {
      const error = await t.throwsAsync((await setUp(t, row)).attempt(), refused);
      t.is(error.message, wrong.message);
    }
  },
);

test.serial(
  'signIn - hashes nothing once the tries are used up, also for a right password',
  async (t) => {
    const { attempt } = await setUp(t);
    for (let i = 0; i < 2; i++) await t.throwsAsync(attempt({ password: 'wrong' }), refused);
    await t.throwsAsync(attempt(), { code: 'ERR_LIMIT_RATE' });
  },
);

test.serial(
  'signIn - lets the owner in on a known device while strangers are throttled',
  async (t) => {
    const { store, user, attempt } = await setUp(t);
    const device = await enrolDevice(store, user.id);
    await store.write((tx) =>
      startSession(tx, {
        userId: user.id,
        deviceId: device.id,
        provider: 'local',
        methods: ['password'],
        limits: { idleMs: 1, absoluteMs: 1 },
        nowMs: startMs,
      }),
    );
    for (let i = 0; i < 2; i++) await t.throwsAsync(attempt({ password: 'wrong' }), refused);
    await t.throwsAsync(attempt(), { code: 'ERR_LIMIT_RATE' });
    await t.notThrowsAsync(attempt({ device: device.id }));
  },
);

test.serial(
  'signIn - a right password in a known browser, again and again, leaves others and administrators their turn',
  async (t) => {
    const { store, user, clock, attempt } = await setUp(t);
    await addUser(store, 'ben', { passwordHash });
    const browser = (id: number) => ({ id: String(id), user: user.id });
    const hash = holdNextHash();
    const running = attempt({ browser: browser(0) });
    await hash.begun;
    const flood = Array.from({ length: 40 }, (_, id) => attempt({ browser: browser(id % 20) }));
    // One hash runs and four wait, from however many browsers; all others are refused at once.
    let refusals = 0;
    const allRefused = Promise.withResolvers<undefined>();
    const outcomes = flood.map((one) =>
      one.then(
        () => 'signed_in',
        (error: unknown) => {
          if (++refusals === 36) allRefused.resolve(undefined);
          return error instanceof ZtnaError ? error.code : String(error);
        },
      ),
    );
    await allRefused.promise;
    const other = attempt({ user: 'ben', address: '192.0.2.2' });
    const chosen = preparePassword('green kettle loud sun', 'carl', { priority: 'admin' });
    hash.release();
    await t.notThrowsAsync(Promise.all([running, other, chosen]));
    const ended = Map.groupBy(await Promise.all(outcomes), (outcome) => outcome);
    t.is(ended.get('signed_in')?.length, 4);
    t.is(ended.get('ERR_LIMIT_RATE')?.length, 36);
    clock.advance(60_000);
    await t.notThrowsAsync(attempt({ browser: browser(0) }));
  },
);

test.serial(
  'signIn - asks for the second factor once the password is right, and takes a code once',
  async (t) => {
    const { store, clock, user, attempt } = await setUp(t);
    const uri = await store.write((tx) => beginTotp(tx, user, clock.nowMs()));
    const secret = Secret.fromBase32(new URL(uri).searchParams.get('secret') ?? '');
    const code = () => new TOTP({ secret }).generate({ timestamp: clock.nowMs() });
    await store.write((tx) => confirmTotp(tx, user.id, code(), clock.nowMs()));
    await t.throwsAsync(attempt({ password: 'wrong', otp: code() }), refused);
    await t.throwsAsync(attempt(), { code: 'ERR_IDENTITY_OTP_NEEDED' });
    await t.throwsAsync(attempt({ otp: code() }), refused); // confirming has used it
    clock.advance(60_000);
    const { methods } = await attempt({ otp: code() });
    t.deepEqual(methods, ['password', 'totp']);
    await t.throwsAsync(attempt({ otp: code() }), refused);
  },
);

test.serial('signIn - refuses a user who was disabled while the password was hashed', async (t) => {
  const { store, user, attempt } = await setUp(t);
  const hash = holdNextHash();
  const running = attempt();
  await hash.begun;
  await store.write((tx) =>
    tx.updateTable('users').set({ disabled: 1 }).where('id', '=', user.id).execute(),
  );
  hash.release();
  await t.throwsAsync(running, refused);
});
