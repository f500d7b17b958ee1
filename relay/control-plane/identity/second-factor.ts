import type { UserId } from '../../../protocol/index.ts';
import type { Tx } from '../store/store.ts';
import { isRecoveryCode, takeRecoveryCode } from './recovery-codes.ts';
import { refuseTotp, useTotp } from './totp.ts';

/** What was typed where a one-time password was asked for. */
export type TypedFactor = 'totp' | 'recovery';

/**
 * Takes a one-time password, or a recovery code in its place; each serves once. `wallMs` is the time that authenticator apps go
 * by. Throws ERR_IDENTITY_SIGN_IN_REFUSED.
 */
export async function useSecondFactor(
  tx: Tx,
  userId: UserId,
  text: string,
  wallMs: number,
): Promise<TypedFactor> {
  if (!isRecoveryCode(text)) {
    await useTotp(tx, userId, text.trim(), wallMs);
    return 'totp';
  }
  if (!(await takeRecoveryCode(tx, userId, text, wallMs))) throw refuseTotp('recovery_code_wrong');
  return 'recovery';
}
