import { ZtnaError } from '../../../protocol/index.ts';
import { revokeOwnDevice } from '../access/own-devices.ts';
import {
  addPasskey,
  endBrowserSession,
  isDeviceWord,
  keepChallenge,
  listPasskeys,
  makeRecoveryCodes,
  newPasskeyOptions,
  readFactors,
  removePasskey,
  takeChallenge,
  verifyNewPasskey,
  whyNotChange,
  type Factors,
  type SignedInBrowser,
  type WhyNotChange,
} from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';
import { deviceCookie, forgetCookie, readCookie, sessionCookie } from './cookies.ts';
import { parseCredential, partyOf } from './passkey-step.ts';
import type { WebRequest } from './request.ts';

/** What a change leads to: another page, or codes that are shown once. */
export type Changed =
  | { readonly to: string; readonly headers?: Readonly<Record<string, string>> }
  | { readonly codes: readonly string[] };

/** Carries out what a form of the account page asks for, on record. Throws what it is refused with. */
export async function changeAccount(
  services: Services,
  web: WebRequest,
  browser: SignedInBrowser,
  form: URLSearchParams,
): Promise<Changed> {
  const { user } = browser;
  const actor = `user:${user.name}`;
  switch (form.get('action') ?? '') {
    case 'revoke_device':
      await revokeOwnDevice(services, { user: user.id, device: form.get('device') ?? '', actor });
      await services.feed.wake(); // everybody is told before the answer
      return { to: '/account?said=device_revoked' };
    case 'add_passkey':
      return addOwnPasskey(services, web, browser, form);
    case 'remove_passkey':
      await refuseWeak(services, web, browser);
      await onRecord(services, web, browser, 'passkey.remove', async (tx) => {
        if (await removePasskey(tx, user.id, form.get('passkey') ?? '')) return;
        throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { hint: 'that passkey is removed already' });
      });
      return { to: '/account?said=passkey_removed' };
    case 'make_codes':
      return makeCodes(services, web, browser);
    case 'sign_out':
      await onRecord(services, web, browser, 'account.sign_out', (tx) =>
        endBrowserSession(tx, browser.session),
      );
      return { to: '/', headers: { 'set-cookie': forgetCookie(sessionCookie) } };
    default:
      throw new ZtnaError('ERR_MESSAGE_MALFORMED', { reason: 'action_unknown' });
  }
}

async function addOwnPasskey(
  services: Services,
  web: WebRequest,
  browser: SignedInBrowser,
  form: URLSearchParams,
): Promise<Changed> {
  const { store, clock } = services;
  await refuseWeak(services, web, browser);
  const party = partyOf(services);
  const challenge = await store.write((tx) => takeChallenge(tx, browser.session));
  if (challenge === undefined) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'challenge_used' });
  }
  const made = await verifyNewPasskey(
    party,
    challenge,
    parseCredential(form.get('credential') ?? ''),
  );
  const name = (form.get('name') ?? '').trim().slice(0, 64) || 'passkey';
  await onRecord(services, web, browser, 'passkey.add', (tx) =>
    addPasskey(tx, { ...made, name, userId: browser.user.id, createdAtMs: clock.nowMs() }),
  );
  return { to: '/account?said=passkey_added' };
}

/** What a browser is given to make a passkey of; whoever may not add one is told before the browser asks for it. */
export async function newPasskey(services: Services, web: WebRequest, browser: SignedInBrowser) {
  const { store } = services;
  await refuseWeak(services, web, browser);
  const known = await listPasskeys(store.db, browser.user.id);
  const options = await newPasskeyOptions(partyOf(services), browser.user, known);
  await store.write((tx) => keepChallenge(tx, browser.session, options.challenge));
  return options;
}

async function makeCodes(
  services: Services,
  web: WebRequest,
  browser: SignedInBrowser,
): Promise<Changed> {
  const { otp } = await refuseWeak(services, web, browser);
  if (!otp) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
      hint: 'recovery codes stand in for one-time passwords: set those up first, with ztna mfa add',
    });
  }
  const codes = await onRecord(services, web, browser, 'recovery.make', (tx) =>
    makeRecoveryCodes(tx, browser.user.id, services.clock.nowMs()),
  );
  return { codes };
}

/** What the user has, and why it may not be changed now. */
export async function readChangeable(
  { store, clock, sealer }: Services,
  web: WebRequest,
  { user, methods, session }: SignedInBrowser,
): Promise<{ readonly factors: Factors; readonly whyNot: WhyNotChange | undefined }> {
  const nowMs = clock.nowMs();
  const factors = await readFactors(store.db, user.id);
  const hasDevice = isDeviceWord(sealer, readCookie(web, deviceCookie), user.id, nowMs);
  const signedIn = { methods, atMs: session.createdAtMs, hasDevice };
  return { factors, whyNot: whyNotChange(factors, signedIn, nowMs) };
}

const advice = {
  sign_in_old: 'sign in again, then change this within five minutes',
  sign_in_weak: 'sign in again with all that you have, then change this within five minutes',
  first_needs_device: 'add the first one from a machine of yours: ztna mfa add --passkey',
} as const satisfies Record<WhyNotChange, string>;

/** Answers what the user has, to who may change it. */
async function refuseWeak(
  services: Services,
  web: WebRequest,
  browser: SignedInBrowser,
): Promise<Factors> {
  if (browser.user.provider !== null) {
    throw new ZtnaError('ERR_POLICY_DENIED', {
      reason: 'user_of_provider',
      hint: 'your sign-in methods are kept by your identity provider',
    });
  }
  const { factors, whyNot } = await readChangeable(services, web, browser);
  if (whyNot === undefined) return factors;
  throw new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED', { reason: whyNot, hint: advice[whyNot] });
}

/** Makes a change with its audit record in the same transaction. */
function onRecord<T>(
  { store, audit }: Services,
  { address }: WebRequest,
  { user, methods }: SignedInBrowser,
  action: string,
  change: (tx: Tx) => Promise<T>,
): Promise<T> {
  return store.write(async (tx) => {
    const result = await change(tx);
    const actor = `user:${user.name}`;
    const details = { address, methods };
    const { name } = user;
    await audit.append({ actor, action, subject: user.id, outcome: 'ok', user: name, details }, tx);
    return result;
  });
}
