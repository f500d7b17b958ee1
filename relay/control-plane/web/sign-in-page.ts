import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { findOpenSignIn, relyingPartyOf } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { SignIn } from '../store/index.ts';
import { providerPath, readProviderChoices } from './choices.ts';
import { finishInBrowser, loopbackOf } from './finish.ts';
import { readForm } from './form.ts';
import { goTo, replyPage } from './layout.ts';
import { markup } from './markup.ts';
import {
  provePasswordOnPage,
  proveOtpOnPage,
  rememberBrowser,
  type Proved,
} from './password-steps.ts';
import { provePasskeyOnPage, replyPasskeyOptions } from './passkey-step.ts';
import { pageRoute, sentence, statusOf } from './page-route.ts';
import { refuseOnPage } from './refuse.ts';
import type { WebRequest, WebRoute } from './request.ts';
import { otpCard, signInCard, titleOf } from './sign-in-view.ts';

const prefix = '/sign-in/';

/** `/sign-in/ID`: where a person proves who he or she is, for the command or the page that asked. */
export const signInRoute: WebRoute = pageRoute(prefix, async (services, web) => {
  const [id = '', ...rest] = web.url.pathname.slice(prefix.length).split('/');
  const signIn = await findOpenSignIn(services.store.db, id, services.clock.nowMs());
  if (!signIn) {
    replyOver(services, web);
    return;
  }
  const { method } = web.request;
  const isPasskey = rest.length === 1 && rest[0] === 'passkey' && method === 'POST';
  if (isPasskey) await replyPasskeyOptions(services, web, signIn);
  else if (rest.length > 0) throw new ZtnaError('ERR_CONFIG_NOT_FOUND');
  else if (method === 'POST') await answerStep(services, web, signIn);
  else if (signIn.provider !== null && signIn.provider !== 'local') {
    goTo(web, providerPath(signIn.provider, signIn.id));
  } else await replySignIn(services, web, signIn, 200, { user: '', said: null });
});

function replyOver(services: Services, web: WebRequest): void {
  replyPage(services, web, 404, {
    title: 'This sign-in is over',
    body: markup`<section class="card">
<h1>This sign-in is over</h1>
<p>It was used already, or it took too long. Begin again where you began: <code>ztna login</code>, or
<a href="/account">your account</a>.</p>
</section>`,
  });
}

async function answerStep(services: Services, web: WebRequest, signIn: SignIn): Promise<void> {
  const form = await readForm(services, web);
  const user = nameFrom(form.get('user') ?? '');
  switch (form.get('step') ?? '') {
    case 'password': {
      const password = form.get('password') ?? '';
      const result = await attempt(services, web, signIn, user, () =>
        provePasswordOnPage(services, web, signIn, user, password),
      );
      if (result === undefined) return;
      if ('token' in result) replyOtp(services, web, signIn, 200, { ...result, user, said: null });
      else await finishLocal(services, web, signIn, result);
      return;
    }
    case 'otp':
      return answerOtpStep(services, web, signIn, form);
    case 'passkey': {
      const credential = form.get('credential') ?? '';
      const proved = await attempt(services, web, signIn, '', () =>
        provePasskeyOnPage(services, signIn, credential),
      );
      if (proved) await finishLocal(services, web, signIn, proved);
      return;
    }
    default:
      throw new ZtnaError('ERR_MESSAGE_MALFORMED', { reason: 'step_unknown' });
  }
}

async function answerOtpStep(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  form: URLSearchParams,
): Promise<void> {
  const token = form.get('token') ?? '';
  const step = await proveOtpOnPage(services, web, signIn, token, form.get('otp') ?? '');
  if ('methods' in step) {
    await finishLocal(services, web, signIn, step);
    return;
  }
  await refuseOnPage(services, web, signIn, step.error, step.user?.name ?? null);
  const said = wordsFor(step.error, 'That one-time password does not fit, or was used already.');
  if (step.user) {
    const view = { token, user: step.user.name, said };
    replyOtp(services, web, signIn, statusOf(step.error), view);
  } else {
    const view = { user: '', said: 'That took too long. Begin with your password again.' };
    await replySignIn(services, web, signIn, 403, view);
  }
}

/** A name as people type it. No name is longer, and what counts guesses remembers it. */
function nameFrom(text: string): string {
  return text.trim().slice(0, 64).toLowerCase();
}

/** Runs a step; where it is refused that is recorded and told on the page, and undefined is the answer. */
async function attempt<T>(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  user: string,
  run: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    await refuseOnPage(services, web, signIn, error, user);
    const refused =
      user === '' ? 'That passkey does not fit.' : 'User name or password is not right.';
    const said = wordsFor(error, refused);
    await replySignIn(services, web, signIn, statusOf(error), { user, said });
    return undefined;
  }
}

/** What the person is told; throws on what is no refusal. */
function wordsFor(error: unknown, refused: string): string {
  const { code, hint } = toZtnaError(error);
  if (code === 'ERR_IDENTITY_SIGN_IN_REFUSED') return refused;
  if (code !== 'ERR_LIMIT_RATE') throw error;
  return hint === undefined
    ? 'Too many attempts. Wait a little.'
    : sentence(`too many attempts: ${hint}`);
}

async function replySignIn(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  status: number,
  { user, said }: { readonly user: string; readonly said: string | null },
): Promise<void> {
  const view = {
    signIn,
    device: await deviceOf(services, signIn),
    providers: signIn.provider === 'local' ? [] : await readProviderChoices(services),
    hasPasskeys: relyingPartyOf(services.settings) !== null,
    user,
    said,
  };
  const page = { title: titleOf(signIn), body: signInCard(view), formTarget: targetOf(signIn) };
  replyPage(services, web, status, page);
}

function replyOtp(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  status: number,
  view: { readonly token: string; readonly user: string; readonly said: string | null },
): void {
  const body = otpCard({ ...view, signIn }, view.token);
  replyPage(services, web, status, { title: 'Second step', body, formTarget: targetOf(signIn) });
}

function targetOf({ loopbackPort }: SignIn): string | null {
  return loopbackPort === null ? null : loopbackOf(loopbackPort);
}

async function deviceOf(
  { store }: Services,
  { deviceId }: SignIn,
): Promise<{ readonly hostname: string; readonly user: string } | null> {
  if (deviceId === null) return null;
  const row = await store.db
    .selectFrom('devices')
    .innerJoin('users', 'users.id', 'devices.userId')
    .select(['hostname', 'users.name as user'])
    .where('devices.id', '=', deviceId)
    .executeTakeFirst();
  return row ?? null;
}

async function finishLocal(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  { user, methods }: Proved,
): Promise<void> {
  rememberBrowser(services, web, user);
  await finishInBrowser(services, web, signIn, {
    user: user.id,
    provider: 'local',
    methods,
    acr: '',
    authenticatedAtMs: services.clock.nowMs(),
    grant: null,
  });
}
