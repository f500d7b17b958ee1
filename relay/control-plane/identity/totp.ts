import { Secret, TOTP } from 'otpauth';
import { ZtnaError, type UserId } from '../../../protocol/index.ts';
import type { Reader, Tx } from '../store/store.ts';
import { removeRecoveryCodes } from './recovery-codes.ts';

const periodSeconds = 30;
const digits = 6;
/** Steps accepted before and after the present one: clocks of phones, fingers of people. */
const window = 1;
/** As RFC 4226 advises for HMAC-SHA-1. */
const secretBytes = 20;

function totpOf(secret: string, label = ''): TOTP {
  return new TOTP({
    issuer: 'ztna',
    label,
    secret: Secret.fromBase32(secret),
    algorithm: 'SHA1', // what every authenticator app knows
    digits,
    period: periodSeconds,
  });
}

/** The step that `code` is for, or undefined when it is for none near `nowMs` (real time). */
export function totpStep(secret: string, code: string, nowMs: number): number | undefined {
  if (!/^[0-9]{6}$/.test(code)) return undefined;
  // otpauth compares in constant time.
  const delta = totpOf(secret).validate({ token: code, timestamp: nowMs, window });
  return delta === null ? undefined : Math.floor(nowMs / 1000 / periodSeconds) + delta;
}

/** Begins with a new secret, which counts once `confirmTotp` has seen a code. Answers the `otpauth:` URI. */
export async function beginTotp(
  tx: Tx,
  user: { readonly id: UserId; readonly name: string },
  nowMs: number,
): Promise<string> {
  const known = await readTotp(tx, user.id);
  if (known?.confirmed) {
    throw new ZtnaError('ERR_CONFIG_EXISTS', {
      message: 'one-time passwords are set up already',
      hint: 'remove them first: ztna mfa remove',
    });
  }
  const secret = new Secret({ size: secretBytes }).base32;
  await tx.deleteFrom('totpSecrets').where('userId', '=', user.id).execute();
  await tx
    .insertInto('totpSecrets')
    .values({ userId: user.id, secret, confirmed: 0, lastUsedStep: 0, createdAtMs: nowMs })
    .execute();
  return totpOf(secret, user.name).toString();
}

/** Makes the secret count. Throws ERR_IDENTITY_SIGN_IN_REFUSED for a wrong code. */
export async function confirmTotp(
  tx: Tx,
  userId: UserId,
  code: string,
  nowMs: number,
): Promise<void> {
  await useTotp(tx, userId, code, nowMs, { confirmed: false });
  await tx.updateTable('totpSecrets').set({ confirmed: 1 }).where('userId', '=', userId).execute();
}

/**
 * Takes a code: each step serves once, also for two who type it at the same moment.
 * Throws ERR_IDENTITY_SIGN_IN_REFUSED.
 */
export async function useTotp(
  tx: Tx,
  userId: UserId,
  code: string,
  nowMs: number,
  state: { readonly confirmed: boolean } = { confirmed: true },
): Promise<void> {
  const known = await readTotp(tx, userId);
  const step =
    known?.confirmed === state.confirmed ? totpStep(known.secret, code, nowMs) : undefined;
  if (step === undefined) throw refuseTotp('totp_wrong');
  const used = await tx
    .updateTable('totpSecrets')
    .set({ lastUsedStep: step })
    .where('userId', '=', userId)
    .where('lastUsedStep', '<', step)
    .returning('userId')
    .executeTakeFirst();
  if (!used) throw refuseTotp('totp_replayed');
}

/** True when the user's sign-in asks for a one-time password. */
export async function hasTotp(db: Reader | Tx, userId: UserId): Promise<boolean> {
  return (await readTotp(db, userId))?.confirmed === true;
}

/** Ends them, and with them the recovery codes that stand in for them. */
export async function removeTotp(tx: Tx, userId: UserId): Promise<void> {
  await removeRecoveryCodes(tx, userId);
  await tx.deleteFrom('totpSecrets').where('userId', '=', userId).execute();
}

async function readTotp(
  db: Reader | Tx,
  userId: UserId,
): Promise<{ readonly secret: string; readonly confirmed: boolean } | undefined> {
  const row = await db
    .selectFrom('totpSecrets')
    .select(['secret', 'confirmed'])
    .where('userId', '=', userId)
    .executeTakeFirst();
  return row && { secret: row.secret, confirmed: row.confirmed === 1 };
}

/** How a one-time password that does not fit is refused. */
export function refuseTotp(reason: string): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason });
}
