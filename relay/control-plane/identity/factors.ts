import type { UserId } from '../../../protocol/index.ts';
import type { Passkey } from '../store/database.ts';
import type { Reader, Tx } from '../store/store.ts';
import { isMultiFactor } from './methods.ts';
import { listPasskeys } from './passkeys.ts';
import { countRecoveryCodes } from './recovery-codes.ts';
import { hasTotp } from './totp.ts';

/** A sign-in of so long ago no longer shows who sits there, where sign-in methods are changed. */
export const freshForMs = 300_000;

/** What a user signs in with beside a password. */
export interface Factors {
  readonly otp: boolean;
  readonly recoveryCodesLeft: number;
  readonly passkeys: readonly Passkey[];
}

export async function readFactors(db: Reader | Tx, user: UserId): Promise<Factors> {
  return {
    otp: await hasTotp(db, user),
    recoveryCodesLeft: await countRecoveryCodes(db, user),
    passkeys: await listPasskeys(db, user),
  };
}

/** Why sign-in methods may not be changed. */
export type WhyNotChange = 'sign_in_old' | 'sign_in_weak' | 'first_needs_device';

/**
 * Why a sign-in may not change what its user signs in with: too long ago, or weaker than what the user has; or it would add the
 * first thing beside a password, and no enrolled device says that it is the user. Undefined where it may. Without that a password
 * alone would be enough to put a passkey beside it.
 */
export function whyNotChange(
  { otp, passkeys }: Factors,
  signedIn: {
    readonly methods: readonly string[];
    readonly atMs: number;
    /** Whether an enrolled device has a part in it. */
    readonly hasDevice: boolean;
  },
  nowMs: number,
): WhyNotChange | undefined {
  if (nowMs - signedIn.atMs > freshForMs) return 'sign_in_old';
  const hasMore = otp || passkeys.length > 0;
  if (hasMore) return isMultiFactor(signedIn.methods) ? undefined : 'sign_in_weak';
  return signedIn.hasDevice ? undefined : 'first_needs_device';
}
