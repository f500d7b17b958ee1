import { createHash, randomBytes } from 'node:crypto';
import { ZtnaError } from '../../../protocol/index.ts';
import { listOwnDevices } from '../access/own-devices.ts';
import {
  beginSignIn,
  deviceWordLifeMs,
  findBrowserSession,
  formTokenOf,
  relyingPartyOf,
  signInLifeMs,
  type SignedInBrowser,
} from '../identity/index.ts';
import type { Services } from '../services.ts';
import { changeAccount, newPasskey, readChangeable } from './account-changes.ts';
import { accountView, codesCard, saidTexts } from './account-view.ts';
import { beginCookie, cookie, deviceCookie, readCookie, sessionCookie } from './cookies.ts';
import { readForm } from './form.ts';
import { goTo, replyPage } from './layout.ts';
import { pageRoute } from './page-route.ts';
import { reply, type WebRequest, type WebRoute } from './request.ts';

/** `/account`: a user's own devices and sign-in methods. Who is not signed in here is asked to be. */
export const accountRoute: WebRoute = pageRoute('/account', async (services, web) => {
  const { pathname } = web.url;
  const token = readCookie(web, sessionCookie) ?? '';
  const browser = await findBrowserSession(services.store.db, token, services.clock.nowMs());
  const word = web.url.searchParams.get('device');
  if (word !== null) keepWord(web, word);
  else if (web.request.method === 'POST') await answerForm(services, web, browser, token);
  else if (pathname === '/account' && browser) await replyAccount(services, web, browser, token);
  else if (pathname === '/account' || pathname === '/account/again') await begin(services, web);
  else throw new ZtnaError('ERR_CONFIG_NOT_FOUND');
});

/** A device sent the person here: what it says is kept for a while, and leaves the address. */
function keepWord(web: WebRequest, word: string): void {
  const isWord = /^[A-Za-z0-9_-]{1,512}$/.test(word);
  const kept = cookie(deviceCookie, isWord ? word : '', deviceWordLifeMs, 'Lax');
  goTo(web, '/account', { 'set-cookie': kept });
}

async function begin(services: Services, web: WebRequest): Promise<void> {
  const verifier = randomBytes(32).toString('base64url');
  const signIn = await services.store.write((tx) =>
    beginSignIn(tx, {
      purpose: 'account',
      deviceId: null,
      provider: null,
      challenge: createHash('sha256').update(verifier).digest('base64url'),
      loopbackPort: null,
      isStepUp: false,
      address: web.address,
      nowMs: services.clock.nowMs(),
    }),
  );
  const kept = cookie(beginCookie, verifier, signInLifeMs, 'Lax');
  goTo(web, `/sign-in/${signIn.id}`, { 'set-cookie': kept });
}

async function answerForm(
  services: Services,
  web: WebRequest,
  browser: SignedInBrowser | undefined,
  token: string,
): Promise<void> {
  const form = await readForm(services, web);
  if (!browser) {
    goTo(web, '/account');
    return;
  }
  if (form.get('form') !== formTokenOf(token)) {
    throw new ZtnaError('ERR_POLICY_DENIED', {
      reason: 'form_other',
      hint: 'open /account again, and use what is on it',
    });
  }
  if (web.url.pathname === '/account/passkey') {
    const options = await newPasskey(services, web, browser);
    reply(web.response, 200, 'application/json', JSON.stringify(options));
    return;
  }
  const result = await changeAccount(services, web, browser, form);
  if ('codes' in result) {
    replyPage(services, web, 200, { title: 'Recovery codes', body: codesCard(result.codes) });
  } else goTo(web, result.to, result.headers);
}

async function replyAccount(
  services: Services,
  web: WebRequest,
  browser: SignedInBrowser,
  token: string,
): Promise<void> {
  const { clock, settings } = services;
  const { user } = browser;
  const nowMs = clock.nowMs();
  const said = web.url.searchParams.get('said') ?? '';
  const view = {
    user,
    ...(await readChangeable(services, web, browser)),
    devices: await listOwnDevices(services, user.id),
    hasPasskeys: relyingPartyOf(settings) !== null,
    said: Object.hasOwn(saidTexts, said) ? (saidTexts[said] ?? null) : null,
    formToken: formTokenOf(token),
    nowMs,
  };
  replyPage(services, web, 200, { title: 'Your account', body: accountView(view) });
}
