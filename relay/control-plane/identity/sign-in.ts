import { ZtnaError, type DeviceId, type UserId } from '../../../protocol/index.ts';
import type { KnownBrowser } from './known-browser.ts';
import { checkNewPassword, maxPasswordLength } from './password-rules.ts';
import { hashPassword, verifyPassword } from './scrypt.ts';
import { useSecondFactor, type TypedFactor } from './second-factor.ts';
import { hasTotp } from './totp.ts';
import type { Place } from './turnstile.ts';
import type { SignInSource, SignInThrottle } from './throttle.ts';
import type { User } from '../store/database.ts';
import type { Reader, Store, Tx } from '../store/store.ts';

export interface Credentials {
  readonly user: string;
  readonly password: string;
  readonly otp: string | null;
  readonly device: DeviceId | null;
  /** Whose device it is. Everybody else's password on it is a wrong one. */
  readonly owner?: UserId | null;
  /** A browser that some user has signed in with before, where it is one. */
  readonly browser?: KnownBrowser | undefined;
  readonly address: string;
}

/** A user who proved to be one. Made only by `signIn`. */
export interface AuthenticatedUser {
  readonly __authenticated: unique symbol;
  readonly user: User;
  readonly methods: readonly string[]; // `password`, and `totp` or `recovery`
}

export interface SignInOptions {
  readonly store: Store;
  readonly throttle: SignInThrottle;
  readonly clock: { nowMs(): number };
  /** The time that authenticator apps go by; the machine's own unless a test says otherwise. */
  readonly wallMs?: () => number;
}

/**
 * Checks a local user's password and, where set up, one-time password or recovery code. Unknown, disabled and expired users
 * look and cost like a wrong password.
 * Throws ERR_IDENTITY_SIGN_IN_REFUSED, ERR_IDENTITY_OTP_NEEDED once the password is right, or ERR_LIMIT_RATE.
 */
export async function signIn(
  options: SignInOptions,
  credentials: Credentials,
): Promise<AuthenticatedUser> {
  const { otp } = credentials;
  const user = await provePassword(options, credentials);
  const methods = ['password'];
  if (await hasTotp(options.store.db, user.id)) {
    if (otp === null) throw new ZtnaError('ERR_IDENTITY_OTP_NEEDED');
    methods.push(await proveSecondFactor(options, user, otp, credentials));
  }
  return { user, methods } as unknown as AuthenticatedUser;
}

/** The first half of `signIn`: whose password it is. Whether that is enough, the caller asks `hasTotp`. */
export async function provePassword(
  { store, throttle, clock }: SignInOptions,
  credentials: Omit<Credentials, 'otp'>,
): Promise<User> {
  const { password } = credentials;
  const named = await findUser(store.db, credentials.user);
  const isOwner = credentials.owner === undefined || named?.id === credentials.owner;
  const found = isOwner ? named : undefined;
  const source = await sourceOf(store.db, credentials, found);
  const attempt = throttle.begin(source);
  // However many strangers wait: who has been there before goes ahead of them, one at a time.
  const place: Place =
    source.isKnown && found ? { priority: 'known', of: found.id } : { priority: 'usual' };
  const isRight =
    password.length <= maxPasswordLength &&
    (await verifyPassword(password, found?.passwordHash ?? null, place));
  // Read again: hashing takes long enough for an administrator to disable the user meanwhile.
  const user = found && (await findUser(store.db, credentials.user));
  if (!isRight || !isActive(user, clock.nowMs()) || user.passwordHash !== found?.passwordHash) {
    attempt.fail();
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', {
      reason: !isOwner ? 'device_not_of_user' : isRight ? 'user_not_active' : 'password_wrong',
    });
  }
  attempt.succeed();
  return user;
}

/** The second half, for a user whose password was right. Answers the method. */
export async function proveSecondFactor(
  { store, throttle, wallMs = Date.now }: SignInOptions,
  user: User,
  otp: string,
  from: Pick<Credentials, 'device' | 'address' | 'browser'>,
): Promise<TypedFactor> {
  const source = await sourceOf(store.db, { ...from, user: user.name }, user);
  const guess = throttle.begin(source, 'otp');
  try {
    const method = await store.write((tx) => useSecondFactor(tx, user.id, otp, wallMs()));
    guess.succeed();
    return method;
  } catch (error) {
    guess.fail();
    throw error;
  }
}

/** True for a user whose account is open. */
export function isActive(user: User | undefined, nowMs: number): user is User {
  return user?.disabled === 0 && (user.expiresAtMs === null || user.expiresAtMs > nowMs);
}

async function sourceOf(
  db: Reader,
  from: Pick<Credentials, 'user' | 'device' | 'address' | 'browser'>,
  user: User | undefined,
): Promise<SignInSource> {
  const { user: account, device, address, browser } = from;
  if (user !== undefined && device === null && browser?.user === user.id) {
    return { account, address, device: `browser ${browser.id}`, isKnown: true };
  }
  const isKnown = user !== undefined && (await isKnownDevice(db, user, device));
  return { account, address, device, isKnown };
}

/**
 * Checks and hashes a password that someone chooses, before the transaction that stores it: hashing is slow.
 * Throws ERR_IDENTITY_PASSWORD_WEAK or ERR_LIMIT_RATE.
 */
export async function preparePassword(
  password: string,
  userName: string,
  place?: Place,
): Promise<string> {
  checkNewPassword(password, userName);
  return hashPassword(password, place);
}

export async function findUser(db: Reader | Tx, name: string): Promise<User | undefined> {
  return db.selectFrom('users').selectAll().where('name', '=', name).executeTakeFirst();
}

/** True once this user has signed in on this device: an attacker elsewhere cannot use up its tries. */
async function isKnownDevice(db: Reader, user: User, device: DeviceId | null): Promise<boolean> {
  if (device === null) return false;
  const session = await db
    .selectFrom('sessions')
    .select('id')
    .where('userId', '=', user.id)
    .where('deviceId', '=', device)
    .executeTakeFirst();
  return session !== undefined;
}
