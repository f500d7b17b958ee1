import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { ZtnaError } from '../../../protocol/index.ts';
import {
  hasTotp,
  isActive,
  knownBrowserLifeMs,
  openKnownBrowser,
  provePassword,
  proveSecondFactor,
  sealKnownBrowser,
} from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { SignIn, User } from '../store/index.ts';
import { cookie, knownCookie, readCookie, setCookie } from './cookies.ts';
import type { WebRequest } from './request.ts';

/** How long somebody whose password was right has for the second step. */
const stepLifeMs = 300_000;

/** What was proved, as far as a page goes. */
export interface Proved {
  readonly user: User;
  readonly methods: readonly string[];
}

const stepSchema = v.strictObject({
  user: v.string(),
  password: v.string(), // which one it was: one that is replaced meanwhile counts no more
  untilMs: v.number(),
});

/**
 * The first step. Answers who it is, or where a one-time password is set up a token for the second step. Throws what
 * `provePassword` throws.
 */
export async function provePasswordOnPage(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  name: string,
  password: string,
): Promise<Proved | { readonly token: string }> {
  const { store, clock, sealer, signInThrottle: throttle } = services;
  const device = signIn.deviceId;
  const { address } = web;
  const browser = knownBrowserOf(services, web);
  const credentials = { user: name, password, device, address, browser };
  const owner = device === null ? undefined : await ownerOf(services, device);
  const user = await provePassword(
    { store, clock, throttle },
    owner === undefined ? credentials : { ...credentials, owner },
  );
  if (!(await hasTotp(store.db, user.id))) return { user, methods: ['password'] };
  const step = {
    user: user.id,
    password: digestOf(user),
    untilMs: clock.nowMs() + stepLifeMs,
  };
  return { token: sealer.seal(JSON.stringify(step), aboutStep(signIn)) };
}

/** The second step, with what the first gave. A refusal comes with the user where the first step still counts. */
export async function proveOtpOnPage(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  token: string,
  otp: string,
): Promise<Proved | { readonly error: ZtnaError; readonly user: User | null }> {
  const { store, clock, signInThrottle: throttle } = services;
  const user = await openStep(services, signIn, token);
  if (!user) {
    const error = new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'step_over' });
    return { error, user: null };
  }
  try {
    const { address } = web;
    const from = { device: signIn.deviceId, address, browser: knownBrowserOf(services, web) };
    const method = await proveSecondFactor({ store, clock, throttle }, user, otp, from);
    return { user, methods: ['password', method] };
  } catch (error) {
    if (!(error instanceof ZtnaError)) throw error;
    return { error, user };
  }
}

/** Has the browser remember that this user signed in with it, so that guesses from elsewhere do not keep him or her out. */
export function rememberBrowser(services: Services, web: WebRequest, user: User): void {
  if (knownBrowserOf(services, web)?.user === user.id) return; // a new one would be given all its tries anew
  const { sealer, clock } = services;
  const known = sealKnownBrowser(sealer, user.id, clock.nowMs());
  setCookie(web, cookie(knownCookie, known, knownBrowserLifeMs));
}

function knownBrowserOf({ sealer, clock }: Services, web: WebRequest) {
  return openKnownBrowser(sealer, readCookie(web, knownCookie), clock.nowMs());
}

async function openStep(
  { store, sealer, clock }: Services,
  signIn: SignIn,
  token: string,
): Promise<User | undefined> {
  let text: string;
  try {
    text = sealer.open(token, aboutStep(signIn));
  } catch {
    return undefined; // not ours, or of another sign-in
  }
  const step = v.safeParse(stepSchema, JSON.parse(text));
  if (!step.success || step.output.untilMs <= clock.nowMs()) return undefined;
  const user = await store.db
    .selectFrom('users')
    .selectAll()
    .where('id', '=', step.output.user as User['id'])
    .executeTakeFirst();
  const isSame = isActive(user, clock.nowMs()) && digestOf(user) === step.output.password;
  return isSame ? user : undefined;
}

async function ownerOf({ store }: Services, device: NonNullable<SignIn['deviceId']>) {
  const row = await store.db
    .selectFrom('devices')
    .select('userId')
    .where('id', '=', device)
    .executeTakeFirst();
  return row?.userId ?? null;
}

function aboutStep({ id }: SignIn): string {
  return `second step ${id}`;
}

function digestOf({ passwordHash }: User): string {
  return createHash('sha256')
    .update(passwordHash ?? '')
    .digest('base64url');
}
