import { ZtnaError } from '../../../protocol/index.ts';
import { proveSignIn, type Proof } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { SignIn } from '../store/index.ts';
import { goTo, replyPage } from './layout.ts';
import { markup } from './markup.ts';
import type { WebRequest } from './request.ts';
import { refuseOnPage } from './refuse.ts';

/**
 * Ends a sign-in in the browser of whoever proved to be somebody: brings the result to the command that asked, by the browser
 * where it is on the same machine, else by hand. Throws ERR_IDENTITY_SIGN_IN_REFUSED (`sign_in_over`, `device_not_of_user`).
 */
export async function finishInBrowser(
  services: Services,
  web: WebRequest,
  signIn: SignIn,
  proof: Proof,
): Promise<void> {
  switch (signIn.purpose) {
    case 'session':
      return finishSession(services, web, signIn, proof);
    case 'enrolment':
    case 'account':
      throw new ZtnaError('ERR_CONFIG_NOT_AVAILABLE');
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
    const error = new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', {
      reason: 'device_not_of_user',
      hint: 'this device is enrolled for somebody else: sign in as that user, or enrol it for yourself',
    });
    await refuseOnPage(services, web, signIn, error);
    throw error;
  }
  const ticket = await store.write((tx) =>
    proveSignIn(tx, sealer, signIn.id, proof, { nowMs: clock.nowMs(), needsTicket: true }),
  );
  if (signIn.loopbackPort !== null) {
    const query = new URLSearchParams({ ticket, sign_in: signIn.id });
    goTo(web, `${loopbackOf(signIn.loopbackPort)}/?${query.toString()}`);
    return;
  }
  replyPage(services, web, 200, {
    title: 'Signed in',
    body: markup`<section class="card">
<h1>One more step</h1>
<p>Paste this into the terminal on <strong>${device.hostname}</strong> where you ran <code>ztna login</code>, within five
minutes.</p>
${handOver('ticket', 'Ticket', ticket)}
<p class="note">Nobody else needs it. Whoever asks you for it wants to sign in as you.</p>
</section>`,
  });
}

/** Where the command that asked listens, on the person's own machine. */
export function loopbackOf(port: number): string {
  return `http://127.0.0.1:${String(port)}`;
}

/** What a person carries to a terminal. */
export function handOver(id: string, label: string, text: string) {
  return markup`<div class="field"><label for="${id}">${label}</label>
<input id="${id}" type="text" readonly value="${text}" autocomplete="off" spellcheck="false"></div>
<p class="with-script"><button type="button" class="primary" data-copy="${text}">Copy</button></p>`;
}
