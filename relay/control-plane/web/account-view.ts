import type { Factors, WhyNotChange } from '../identity/index.ts';
import type { Device, Passkey, User } from '../store/index.ts';
import { markup, type Markup } from './markup.ts';

export interface AccountView {
  readonly user: User;
  readonly factors: Factors;
  readonly devices: readonly (Device & { readonly isOnline: boolean })[];
  /** Why sign-in methods may not be changed now; undefined where they may. */
  readonly whyNot: WhyNotChange | undefined;
  readonly hasPasskeys: boolean;
  readonly said: string | null;
  readonly formToken: string;
  readonly nowMs: number;
}

/** What was done, by the word that the address carries. */
export const saidTexts: Readonly<Record<string, string>> = {
  device_revoked: 'The device is revoked, and its tunnels have ended.',
  passkey_added: 'The passkey is added.',
  passkey_removed: 'The passkey is removed.',
};

/** A user's own page. */
export function accountView(view: AccountView): Markup {
  const { user, said, formToken } = view;
  return markup`<section class="card wide">
<div class="who"><h1>Your account</h1>
<form method="post" action="/account">${hidden(formToken, 'sign_out')}<button class="small">Sign out</button></form></div>
<p class="quiet">Signed in as <strong>${user.displayName ?? user.name}</strong>${user.displayName === null ? null : markup` (${user.name})`}.</p>
${said === null ? null : markup`<p class="good" role="status">${said}</p>`}
</section>
${devicesCard(view)}
${user.provider === null ? methodsCard(view) : providerCard(user.provider)}`;
}

/** New recovery codes, shown once. */
export function codesCard(codes: readonly string[]): Markup {
  const text = codes.join('\n');
  return markup`<section class="card">
<h1>Recovery codes</h1>
<p>Each of them signs you in once, in place of a one-time password. They are shown only now, and those of before no longer
work. Print them, or keep them where you keep your passwords.</p>
<ul class="codes">${codes.map((code) => markup`<li>${code}</li>`)}</ul>
<div class="choices"><button type="button" class="primary with-script" data-copy="${text}">Copy all</button>
<a class="button" href="/account">I have kept them</a></div>
</section>`;
}

function devicesCard({ devices, formToken, nowMs }: AccountView): Markup {
  const rows = devices.map(
    (device) => markup`<li><div class="what"><strong>${device.hostname}</strong>${stateTag(device)}
<span>${device.platform} · ${device.isOnline ? 'connected now' : seenText(device, nowMs)}</span></div>
<details><summary>Revoke</summary>
<p class="note">For good: its tunnels end at once, and it has to be enrolled anew.</p>
<form method="post" action="/account">${hidden(formToken, 'revoke_device')}
<input type="hidden" name="device" value="${device.id}"><button class="danger small">Revoke ${device.hostname}</button></form>
</details></li>`,
  );
  return markup`<section class="card wide" aria-labelledby="devices">
<h2 id="devices">Your devices</h2>
${rows.length === 0 ? markup`<p class="quiet">None is enrolled.</p>` : markup`<ul class="rows">${rows}</ul>`}
</section>`;
}

function stateTag({ state, isOnline }: AccountView['devices'][number]): Markup | null {
  if (state === 'pending') return markup`<span class="tag">waits for approval</span>`;
  if (state === 'disabled') return markup`<span class="tag">disabled</span>`;
  return isOnline ? markup`<span class="tag live">online</span>` : null;
}

function seenText({ lastSeenAtMs }: Device, nowMs: number): string {
  return lastSeenAtMs === null ? 'never seen' : `seen ${agoText(nowMs - lastSeenAtMs)}`;
}

/** How long ago that is, as people say it. */
export function agoText(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  if (minutes < 1) return 'just now';
  const count = (n: number, unit: string) => `${String(n)} ${unit}${n === 1 ? '' : 's'} ago`;
  if (minutes < 60) return count(minutes, 'minute');
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? count(hours, 'hour') : count(Math.floor(hours / 24), 'day');
}

function providerCard(provider: string): Markup {
  return markup`<section class="card wide"><h2>Sign-in methods</h2>
<p class="quiet">They are kept by your identity provider (${provider}).</p></section>`;
}

function methodsCard(view: AccountView): Markup {
  const { factors, whyNot, hasPasskeys } = view;
  const mayChange = whyNot === undefined;
  return markup`<section class="card wide" aria-labelledby="methods">
<h2 id="methods">Sign-in methods</h2>
${whyNot === undefined ? null : whyNotText(whyNot)}
<ul class="rows">
${factors.passkeys.map((passkey) => passkeyRow(passkey, view))}
${hasPasskeys && mayChange ? newPasskeyRow(view) : null}
${hasPasskeys && !mayChange && factors.passkeys.length === 0 ? markup`<li><div class="what"><strong>Passkeys</strong><span>none yet</span></div></li>` : null}
<li><div class="what"><strong>One-time passwords</strong><span>${factors.otp ? 'set up' : 'not set up'} · ${factors.otp ? markup`remove with <code>ztna mfa remove</code>` : markup`set up with <code>ztna mfa add</code>`}</span></div></li>
${factors.otp ? codesRow(view) : null}
</ul>
</section>`;
}

function whyNotText(whyNot: WhyNotChange): Markup {
  if (whyNot === 'first_needs_device') {
    return markup`<p>The first passkey is added from one of your machines, so that a password that somebody found out is not
enough. Run there:</p><pre tabindex="0"><code>ztna mfa add --passkey</code></pre>`;
  }
  const text =
    whyNot === 'sign_in_old'
      ? 'You signed in a while ago. To change these, show once more that it is you.'
      : 'To change these, sign in with all that you have.';
  return markup`<p>${text}</p><p><a class="button small" href="/account/again">Sign in again</a></p>`;
}

function passkeyRow(passkey: Passkey, { whyNot, formToken, nowMs }: AccountView): Markup {
  const { lastUsedAtMs, createdAtMs } = passkey;
  const used = lastUsedAtMs === null ? 'never used' : `used ${agoText(nowMs - lastUsedAtMs)}`;
  return markup`<li><div class="what"><strong>${passkey.name}</strong><span class="tag">passkey</span>
<span>added ${agoText(nowMs - createdAtMs)} · ${used}</span></div>
${
  whyNot === undefined
    ? markup`<details><summary>Remove</summary><form method="post" action="/account">${hidden(formToken, 'remove_passkey')}
<input type="hidden" name="passkey" value="${passkey.id}"><button class="danger small">Remove ${passkey.name}</button></form></details>`
    : null
}</li>`;
}

function newPasskeyRow({ formToken }: AccountView): Markup {
  return markup`<li class="with-script"><div class="what"><strong>Add a passkey</strong>
<span>This device, a phone or a security key. No look-alike page can use it.</span>
<form method="post" action="/account" data-passkey="make" data-options="/account/passkey">${hidden(formToken, 'add_passkey')}
<input type="hidden" name="credential" value="">
<p class="alert" role="alert" data-said hidden></p>
<div class="inline"><div class="field"><label for="name">Name</label>
<input id="name" name="name" type="text" maxlength="64" required autocomplete="off" placeholder="My laptop"></div>
<button class="primary small">Add</button></div></form></div></li>`;
}

function codesRow({ factors, whyNot, formToken }: AccountView): Markup {
  return markup`<li><div class="what"><strong>Recovery codes</strong>
<span>${factors.recoveryCodesLeft} left · for when your phone is not at hand</span></div>
${
  whyNot === undefined
    ? markup`<form method="post" action="/account">${hidden(formToken, 'make_codes')}<button class="small">Make new codes</button></form>`
    : null
}</li>`;
}

function hidden(formToken: string, action: string): Markup {
  return markup`<input type="hidden" name="form" value="${formToken}"><input type="hidden" name="action" value="${action}">`;
}
