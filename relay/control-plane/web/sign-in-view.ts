import type { SignIn } from '../store/index.ts';
import { providerPath, type ProviderChoice } from './choices.ts';
import { markup, type Markup } from './markup.ts';

/** What the page of a sign-in shows. */
export interface SignInView {
  readonly signIn: SignIn;
  /** Whose device asks; null where it is nobody's yet. */
  readonly device: { readonly hostname: string; readonly user: string } | null;
  readonly providers: readonly ProviderChoice[];
  /** False for a host without a name, which no passkey can be for. */
  readonly hasPasskeys: boolean;
  readonly user: string;
  readonly said: string | null;
}

/** Ways to sign in: providers, a passkey, a password. */
export function signInCard(view: SignInView): Markup {
  const { providers, hasPasskeys, signIn, said } = view;
  const others = [
    ...providers.map(
      ({ name, title }, at) =>
        markup`<a class="button${at === 0 ? ' primary' : ''}" href="${providerPath(name, signIn.id)}">Continue with ${title}</a>`,
    ),
    ...(hasPasskeys ? [passkeyForm(signIn)] : []),
  ];
  const isPasswordSecond = providers.length > 0;
  const password = passwordForm(view);
  return markup`<section class="card">
<h1>${titleOf(signIn)}</h1>
${purposeText(view)}
${alert(said)}
${others.length === 0 ? null : markup`<div class="choices">${others}</div>`}
${
  isPasswordSecond
    ? markup`<p class="or">or</p><details${said === null ? null : markup` open`}><summary>Sign in with a password of this deployment</summary>${password}</details>`
    : markup`${others.length === 0 ? null : markup`<p class="or with-script">or</p>`}${password}`
}
</section>`;
}

/** The second step, for who has a one-time password. `token` says that the password was right. */
export function otpCard(view: Pick<SignInView, 'signIn' | 'said' | 'user'>, token: string): Markup {
  return markup`<section class="card">
<h1>Second step</h1>
<p>Open your authenticator app, and type the password that it shows for <strong>${view.user}</strong>.</p>
${alert(view.said)}
<form method="post" action="/sign-in/${view.signIn.id}">
<input type="hidden" name="step" value="otp"><input type="hidden" name="token" value="${token}">
<div class="field"><label for="otp">One-time password</label>
<input id="otp" name="otp" type="text" required autofocus autocomplete="one-time-code" autocapitalize="none" spellcheck="false"
 maxlength="20" aria-describedby="otp-help"></div>
<button class="primary">Sign in</button>
<p class="note actions" id="otp-help">Without your phone, type one of your recovery codes. Each serves once.</p>
</form>
</section>`;
}

export function titleOf({ purpose, isStepUp }: SignIn): string {
  if (purpose === 'enrolment') return 'Enrol this machine';
  if (purpose === 'account') return 'Your account';
  return isStepUp === 1 ? 'Confirm that it is you' : 'Sign in';
}

export function alert(said: string | null): Markup | null {
  return said === null ? null : markup`<p class="alert" role="alert">${said}</p>`;
}

function purposeText({ signIn, device }: SignInView): Markup {
  if (signIn.purpose === 'account') {
    return markup`<p class="quiet">Sign in to see your devices and sign-in methods.</p>`;
  }
  const what =
    signIn.purpose === 'enrolment'
      ? 'A machine asks to be enrolled for you.'
      : signIn.isStepUp === 1
        ? 'An application asks for a fresh sign-in.'
        : 'A device of yours asks for it.';
  return markup`<p>${what} If you did not begin this just now, close this page.</p>
<dl class="facts">
${device === null ? null : markup`<dt>Device</dt><dd>${device.hostname}</dd>`}
<dt>Asked from</dt><dd>${signIn.address}</dd>
</dl>`;
}

function passwordForm({ signIn, user, device }: SignInView): Markup {
  const isNamed = user !== '' || device !== null;
  return markup`<form method="post" action="/sign-in/${signIn.id}">
<input type="hidden" name="step" value="password">
<div class="field"><label for="user">User name</label>
<input id="user" name="user" type="text" required autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="64"
 value="${user === '' ? device?.user : user}"></div>
<div class="field"><label for="password">Password</label>
<input id="password" name="password" type="password" required autocomplete="current-password" maxlength="1024"${isNamed ? markup` autofocus` : null}></div>
<button class="primary">Continue</button>
</form>`;
}

function passkeyForm({ id, isStepUp }: SignIn): Markup {
  return markup`<form method="post" action="/sign-in/${id}" data-passkey="use" data-options="/sign-in/${id}/passkey" class="with-script">
<input type="hidden" name="step" value="passkey"><input type="hidden" name="credential" value="">
<p class="alert" role="alert" data-said hidden></p>
<button${isStepUp === 1 ? markup` class="primary"` : null}>Use a passkey</button>
</form>`;
}
