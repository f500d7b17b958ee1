import { createHash } from 'node:crypto';
import * as v from 'valibot';
import { encodeEnrolmentCode, ZtnaError } from '../../../protocol/index.ts';
import { createInvite } from '../devices/index.ts';
import { isMultiFactor, proveSignIn, type Proof } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Invite, SignIn, Tx } from '../store/index.ts';

/** How long a command has to use the code that a browser's sign-in brought it. */
const codeLifeMs = 300_000;

const detailsSchema = v.strictObject({
  signIn: v.string(),
  challenge: v.string(),
  sealedProof: v.string(),
});

/** Who signed in to enrol a machine, and whether that has to be approved. */
export interface BrowserSignIn {
  readonly proof: Proof;
  readonly isHeld: boolean;
}

/** Throws ERR_POLICY_DENIED (`enrolment_by_code_only`) where machines are enrolled by an administrator's code alone. */
export function refuseClosedEnrolment({ settings }: Pick<Services, 'settings'>): void {
  if ((settings.enrolmentMode ?? 'invite') !== 'invite') return;
  throw new ZtnaError('ERR_POLICY_DENIED', {
    reason: 'enrolment_by_code_only',
    hint: 'machines are enrolled here by a one-time code alone: ask your administrator for one',
  });
}

/**
 * Makes the code that enrols a machine for who proved to be somebody, in place of the sign-in. It is good for whoever began that
 * sign-in, once. Throws ERR_POLICY_DENIED (`enrolment_by_code_only`), ERR_IDENTITY_SIGN_IN_REFUSED (`user_not_active`,
 * `enrolment_needs_second_factor`, `sign_in_over`), ERR_LIMIT_DEVICES.
 */
export async function makeEnrolmentCode(
  services: Services,
  tx: Tx,
  signIn: SignIn,
  proof: Proof,
): Promise<string> {
  const { sealer, clock, authority, settings } = services;
  const nowMs = clock.nowMs();
  refuseClosedEnrolment(services);
  // A password that was found out enrols nothing; how strong a provider's sign-in is, is the provider's matter.
  if (proof.provider === 'local' && !isMultiFactor(proof.methods)) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', {
      reason: 'enrolment_needs_second_factor',
      hint: 'a password alone enrols no machine: use a passkey or a one-time password, or ask your administrator for a code',
    });
  }
  await refuseUser(services, tx, proof);
  const given = { nowMs, needsTicket: false };
  await proveSignIn(tx, sealer, signIn.id, proof, given);
  await tx
    .updateTable('signIns')
    .set({ state: 'used', sealedProof: null })
    .where('id', '=', signIn.id)
    .execute();
  // What nobody fetched: the proof may hold what a provider gave.
  await tx
    .deleteFrom('invites')
    .where('kind', '=', 'user')
    .where('expiresAtMs', '<=', nowMs)
    .where('detailsJson', 'like', '%"sealedProof"%')
    .execute();
  const { secret } = await createInvite(tx, {
    kind: 'user',
    subject: proof.user,
    expiresAtMs: nowMs + codeLifeMs,
    nowMs,
    details: {
      signIn: signIn.id,
      challenge: signIn.challenge,
      sealedProof: sealer.seal(JSON.stringify(proof), aboutProof(signIn.id)),
    },
  });
  return encodeEnrolmentCode({ rootId: authority.rootId, secret, url: settings.url });
}

async function refuseUser({ clock, settings }: Services, tx: Tx, { user: id }: Proof) {
  const user = await tx.selectFrom('users').selectAll().where('id', '=', id).executeTakeFirst();
  const isOpen =
    user?.disabled === 0 && (user.expiresAtMs === null || user.expiresAtMs > clock.nowMs());
  if (!isOpen || user.kind !== 'person') {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'user_not_active' });
  }
  const { count } = await tx
    .selectFrom('devices')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('userId', '=', id)
    .where('state', '!=', 'revoked')
    .executeTakeFirstOrThrow();
  if (count >= settings.maxDevicesPerUser) {
    throw new ZtnaError('ERR_LIMIT_DEVICES', {
      reason: 'devices_too_many',
      hint: 'revoke a device that you no longer use, under “Your devices”',
    });
  }
}

/**
 * What a code that a browser's sign-in brought says; undefined for a code of an administrator's. Throws
 * ERR_IDENTITY_CODE_REFUSED (`verifier_wrong`) for who did not begin that sign-in, ERR_POLICY_DENIED where the relay was told
 * meanwhile to take codes of administrators alone.
 */
export function readBrowserSignIn(
  services: Pick<Services, 'sealer' | 'settings'>,
  invite: Invite,
  verifier: string | undefined,
): BrowserSignIn | undefined {
  if (invite.kind !== 'user') return undefined;
  const given = JSON.parse(invite.detailsJson) as Readonly<Record<string, unknown>>;
  if (!Object.hasOwn(given, 'challenge')) return undefined;
  const details = v.safeParse(detailsSchema, given);
  if (!details.success) throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', { reason: 'code_kind' });
  const { challenge, sealedProof, signIn } = details.output;
  const digest = createHash('sha256')
    .update(verifier ?? '')
    .digest('base64url');
  // Both are digests, so how long comparing them takes tells nothing of the verifier.
  if (digest !== challenge) {
    throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', {
      reason: 'verifier_wrong',
      hint: 'only the command that opened the browser can use this code',
    });
  }
  refuseClosedEnrolment(services);
  const proof = JSON.parse(services.sealer.open(sealedProof, aboutProof(signIn))) as Proof;
  return { proof, isHeld: services.settings.enrolmentMode === 'sso-approve' };
}

/** Keeps nothing of the sign-in with a code that was used: the proof may hold what a provider gave. */
export async function forgetBrowserSignIn(tx: Tx, { id }: Pick<Invite, 'id'>): Promise<void> {
  await tx.updateTable('invites').set({ detailsJson: '{}' }).where('id', '=', id).execute();
}

function aboutProof(signIn: string): string {
  return `enrolment ${signIn}`;
}
