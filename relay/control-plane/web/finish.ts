import { createHash } from 'node:crypto';
import { ZtnaError } from '../../../protocol/index.ts';
import { makeEnrolmentCode } from '../enrolment/browser-sign-in.ts';
import {
  browserSessionLifeMs,
  proveSignIn,
  redeemSignIn,
  startBrowserSession,
  type Proof,
} from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { SignIn } from '../store/index.ts';
import {
  beginCookie,
  cookie,
  forgetCookie,
  readCookie,
  sessionCookie,
  setCookie,
} from './cookies.ts';
import { goTo, replyPage } from './layout.ts';
import { markup, type Markup } from './markup.ts';
import { refuseOnPage } from './refuse.ts';
import type { WebRequest } from './request.ts';

/**
 * Ends a sign-in in the browser of whoever proved to be somebody: brings the result to the command that asked, by the browser
 * where it is on the same machine, else by hand; or shows the person's own page. What is refused is put on record. Throws
 * ERR_IDENTITY_SIGN_IN_REFUSED (`sign_in_over`, `device_not_of_user`, `browser_other`) and what `makeEnrolmentCode` throws.
 */
export async function finishInBrowser(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  proof: Proof,
): Promise<void> {
  try {
    switch (signIn.purpose) {
      case 'session':
        await finishSession(services, web, signIn, proof);
        return;
      case 'enrolment':
        await finishEnrolment(services, web, signIn, proof);
        return;
      case 'account':
        await finishAccount(services, web, signIn, proof);
        return;
    }
  } catch (error) {
    await refuseOnPage(services, web, signIn, error);
    throw error;
  }
}

async function finishSession(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  proof: Proof,
): Promise<void> {
  const { store, sealer, clock } = services;
  const device = await store.db
    .selectFrom('devices')
    .select(['userId', 'hostname'])
    .where('id', '=', signIn.deviceId ?? ('' as never))
    .executeTakeFirst();
  if (device?.userId !== proof.user) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', {
      reason: 'device_not_of_user',
      hint: 'this device is enrolled for somebody else: sign in as that user, or enrol it for yourself',
    });
  }
  const ticket = await store.write((tx) =>
    proveSignIn(tx, sealer, signIn.id, proof, { nowMs: clock.nowMs(), needsTicket: true }),
  );
  if (signIn.loopbackPort !== null) {
    goToCommand(web, signIn.loopbackPort, { ticket, sign_in: signIn.id });
    return;
  }
  replyPage(services, web, 200, {
    title: 'Signed in',
    body: markup`<section class="card">
<h1>One more step</h1>
<p>Paste this into the terminal on <strong>${device.hostname}</strong> where you ran <code>ztna login</code>, within five
minutes.</p>
${handOver('ticket', 'Ticket', ticket)}
</section>`,
  });
}

async function finishEnrolment(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  proof: Proof,
): Promise<void> {
  const { store, audit } = services;
  const code = await store.write(async (tx) => {
    const made = await makeEnrolmentCode(services, tx, signIn, proof);
    const { provider, methods, user } = proof;
    const { address } = web;
    const { name } = await tx
      .selectFrom('users')
      .select('name')
      .where('id', '=', user)
      .executeTakeFirstOrThrow();
    await audit.append(
      {
        actor: `user:${name}`,
        action: 'enrolment.sign_in',
        subject: user,
        outcome: 'ok',
        user: name,
        details: { provider, methods, address },
      },
      tx,
    );
    return made;
  });
  if (signIn.loopbackPort !== null && signIn.loopbackState !== null) {
    goToCommand(web, signIn.loopbackPort, { state: signIn.loopbackState, code });
    return;
  }
  replyPage(services, web, 200, {
    title: 'Signed in',
    body: markup`<section class="card">
<h1>One more step</h1>
<p>Paste this code into the terminal where you ran <code>ztna enroll</code>, within five minutes.</p>
${handOver('code', 'Enrolment code', code)}
</section>`,
  });
}

async function finishAccount(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  proof: Proof,
): Promise<void> {
  const { store, sealer, clock, audit } = services;
  const { address } = web;
  const verifier = readCookie(web, beginCookie) ?? '';
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  // Else a link to somebody's finished sign-in would show whoever follows it a page that is not his or hers.
  if (challenge !== signIn.challenge) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', {
      reason: 'browser_other',
      hint: 'begin again in this browser: open /account',
    });
  }
  const token = await store.write(async (tx) => {
    const nowMs = clock.nowMs();
    const ticket = await proveSignIn(tx, sealer, signIn.id, proof, { nowMs, needsTicket: true });
    await redeemSignIn(tx, sealer, { id: signIn.id, deviceId: null, verifier, ticket, nowMs });
    const user = await tx
      .selectFrom('users')
      .select('name')
      .where('id', '=', proof.user)
      .executeTakeFirstOrThrow();
    await audit.append(
      {
        actor: `user:${user.name}`,
        action: 'account.sign_in',
        subject: proof.user,
        outcome: 'ok',
        user: user.name,
        details: { provider: proof.provider, methods: proof.methods, address },
      },
      tx,
    );
    return startBrowserSession(tx, proof, { address, nowMs });
  });
  // Not sent on by a redirect: where a provider began that, a browser would not bring the cookie along.
  setCookie(web, cookie(sessionCookie, token, browserSessionLifeMs));
  setCookie(web, forgetCookie(beginCookie));
  replyPage(services, web, 200, {
    title: 'Signed in',
    goTo: '/account',
    body: markup`<section class="card"><h1>Signed in</h1><p><a href="/account">Go on to your account</a></p></section>`,
  });
}

/** Where the command that asked listens, on the person's own machine. */
export function loopbackOf(port: number): string {
  return `http://127.0.0.1:${String(port)}`;
}

function goToCommand(web: WebRequest, port: number, given: Readonly<Record<string, string>>): void {
  goTo(web, `${loopbackOf(port)}/?${new URLSearchParams(given).toString()}`);
}

/** What a person carries to a terminal. */
function handOver(id: string, label: string, text: string): Markup {
  return markup`<div class="field"><label for="${id}">${label}</label>
<input id="${id}" type="text" readonly value="${text}" autocomplete="off" spellcheck="false"></div>
<p class="with-script"><button type="button" class="primary" data-copy="${text}">Copy</button></p>
<p class="note">Nobody else needs it. Whoever asks you for it wants to sign in as you.</p>`;
}
