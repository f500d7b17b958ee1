import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { limitKeyOf } from '../../data-plane/address.ts';
import { findOpenSignIn, refuseSignIn, signInLifeMs } from '../identity/index.ts';
import { beginCode, finishCode, takeUp } from '../identity/oidc/code-flow.ts';
import { refusal } from '../identity/oidc/failure.ts';
import { logOutByProvider } from '../identity/oidc/logout.ts';
import type { Services } from '../services.ts';
import type { SignIn } from '../store/index.ts';
import { cookie, readCookie } from './cookies.ts';
import { finishInBrowser } from './finish.ts';
import { goTo } from './layout.ts';
import { pageRoute } from './page-route.ts';
import { refuseOnPage } from './refuse.ts';
import { readBody, reply, type WebRequest, type WebRoute } from './request.ts';

const prefix = '/oidc/';

/** What a browser holds while its person is at a provider: whoever brings the answer has to be the one that was sent. */
const cookieName = '__Host-ztna-oidc';

/** Of what a provider tells of a logout. */
const maxLogoutBytes = 32_768;

/**
 * `/oidc/NAME/begin` sends a person to a provider, `/oidc/NAME/callback` is where that person comes back to, and at
 * `/oidc/NAME/logout` the provider itself tells whose sessions are over.
 */
export const oidcRoute: WebRoute = {
  prefix,
  answer: async (services, web) => {
    const [name = '', verb = '', ...rest] = web.url.pathname.slice(prefix.length).split('/');
    const isLogout = verb === 'logout' && rest.length === 0 && web.request.method === 'POST';
    if (isLogout) await logOut(services, web, name);
    else await pages.answer(services, web);
  },
};

const pages = pageRoute(prefix, async (services, web) => {
  const [name = '', verb = '', ...rest] = web.url.pathname.slice(prefix.length).split('/');
  if (rest.length > 0 || web.request.method !== 'GET') throw new ZtnaError('ERR_CONFIG_NOT_FOUND');
  if (verb === 'begin') await begin(services, web, name);
  else if (verb === 'callback') await callback(services, web, name);
  else throw new ZtnaError('ERR_CONFIG_NOT_FOUND');
});

async function begin(services: Services, web: WebRequest, name: string): Promise<void> {
  const id = web.url.searchParams.get('sign_in') ?? '';
  const signIn = await findOpenSignIn(services.store.db, id, services.clock.nowMs());
  if (!signIn) throw withAdvice(refusal('sign_in_over'));
  // Only from the page that says what is asked and from where: no link may have a person enrol a machine unseen.
  const site = web.request.headers['sec-fetch-site'];
  if (signIn.purpose === 'enrolment' && site !== undefined && site !== 'same-origin') {
    goTo(web, `/sign-in/${signIn.id}`);
    return;
  }
  try {
    const { url, browser } = await beginCode(services, signIn, name);
    goTo(web, url.href, { 'set-cookie': cookie(cookieName, browser, signInLifeMs, 'Lax') });
  } catch (error) {
    await refuseOnPage(services, web, signIn, error);
    throw withAdvice(error);
  }
}

async function callback(services: Services, web: WebRequest, name: string): Promise<void> {
  const query = web.url.searchParams;
  const taken = await takeUp(services, query, readCookie(web, cookieName)).catch(
    async (error: unknown) => {
      await refuseOnPage(services, web, { purpose: 'session', deviceId: null }, error);
      throw withAdvice(error);
    },
  );
  const { signIn } = taken;
  let proof;
  try {
    proof = await finishCode(services, name, taken, query);
  } catch (error) {
    await refuseOnPage(services, web, signIn, error);
    await tellCommand(services, signIn, error);
    throw withAdvice(error);
  }
  try {
    await finishInBrowser(services, web, signIn, proof);
  } catch (error) {
    await tellCommand(services, signIn, error);
    throw error;
  }
}

async function logOut(services: Services, web: WebRequest, name: string): Promise<void> {
  const { request, response, address } = web;
  const type = 'application/json';
  const { logoutThrottle } = services.providers;
  if (!logoutThrottle.take(limitKeyOf(address), services.clock.nowMs())) {
    reply(response, 429, type, '{}', { 'retry-after': '60' });
    return;
  }
  try {
    const contentType = request.headers['content-type'] ?? '';
    if (!/^application\/x-www-form-urlencoded(?:;|$)/.test(contentType)) {
      throw new ZtnaError('ERR_MESSAGE_MALFORMED', { reason: 'form_type' });
    }
    const form = new URLSearchParams((await readBody(request, maxLogoutBytes)).toString('utf8'));
    await logOutByProvider(services, name, form.get('logout_token') ?? '');
    reply(response, 200, type, '');
  } catch (error) {
    const { code, reason } = toZtnaError(error);
    await services.refusals.record(address, {
      actor: `address:${address}`,
      action: 'session.end',
      subject: address,
      details: { code, reason: reason ?? null, address, provider: name.slice(0, 64) },
    });
    // Whoever sends them tries again only where that is worth it.
    const status = code === 'ERR_RELAY_UNAVAILABLE' || code === 'ERR_INTERNAL' ? 503 : 400;
    reply(response, status, type, JSON.stringify({ error: 'invalid_request' }));
  }
}

/** The command that waits learns why at once. */
async function tellCommand({ store }: Services, { id }: SignIn, error: unknown): Promise<void> {
  const { reason } = toZtnaError(error);
  await store.write((tx) =>
    refuseSignIn(tx, id, 'ERR_IDENTITY_SIGN_IN_REFUSED', reason ?? 'sign_in_failed'),
  );
}

const advice: Readonly<Record<string, string>> = {
  sign_in_over: 'this sign-in is over: begin again where you began it',
  callback_replayed: 'this sign-in was used already: begin again where you began it',
  browser_other: 'come back in the browser in which you began',
  denied_by_provider:
    'the provider said no: ask whoever runs it whether you may use this application',
  identity_name_taken: 'somebody else has that name here: ask your administrator',
  user_unknown: 'nobody of that name is known here: ask your administrator',
  user_not_active: 'your access is switched off: ask your administrator',
  domain_not_allowed: 'sign in with the address of your organisation',
  email_not_verified: 'have the provider verify your address first',
  groups_left_out:
    'you are in too many groups: ask your administrator to assign some to this application',
  not_fresh: 'the provider did not ask you anew: sign out there, and try again',
};

const awayAdvice = 'the identity provider cannot be reached from here: try again in a moment';

const adviceFor = (reason: string): string =>
  `what the identity provider answered does not hold (${reason.replaceAll('_', ' ')}): begin again, and if that does not help tell your administrator`;

/** The same refusal, with what the person can do. */
function withAdvice(error: unknown): ZtnaError {
  const known = toZtnaError(error);
  const { code, message, reason = '' } = known;
  const isAway = code === 'ERR_RELAY_UNAVAILABLE' && reason.startsWith('provider_');
  const isRefused = code === 'ERR_IDENTITY_SIGN_IN_REFUSED';
  const fallback = isAway ? awayAdvice : isRefused ? adviceFor(reason) : undefined;
  const hint = advice[reason] ?? fallback;
  if (hint === undefined || (known.hint !== undefined && !isAway)) return known;
  return new ZtnaError(code, { message, hint, cause: error, reason });
}
