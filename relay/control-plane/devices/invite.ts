import { createHash, randomBytes } from 'node:crypto';
import { newId, ZtnaError, type SiteId } from '../../../protocol/index.ts';
import type { Invite, InvitesTable } from '../store/database.ts';
import type { Tx } from '../store/store.ts';

/** Bytes of chance in a one-time code. */
const secretBytes = 16;

export interface NewInvite {
  readonly kind: InvitesTable['kind'];
  /** A user's id; a connector's or relay's name. */
  readonly subject: string;
  readonly siteId?: SiteId;
  readonly uses?: number; // default 1
  readonly expiresAtMs: number;
  readonly nowMs: number;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** Makes an invite. The secret is told here once; the store keeps its hash. */
export async function createInvite(
  tx: Tx,
  invite: NewInvite,
): Promise<{ readonly invite: Invite; readonly secret: Buffer }> {
  const secret = randomBytes(secretBytes);
  const row: Invite = {
    id: newId('invite'),
    kind: invite.kind,
    subject: invite.subject,
    siteId: invite.siteId ?? null,
    secretHash: hashSecret(secret),
    usesLeft: invite.uses ?? 1,
    expiresAtMs: invite.expiresAtMs,
    revoked: 0,
    detailsJson: JSON.stringify(invite.details ?? {}),
    createdAtMs: invite.nowMs,
  };
  await tx.insertInto('invites').values(row).execute();
  return { invite: row, secret };
}

/**
 * Takes one use of an invite: of any number of claims at once, as many win as there are uses. Rolled back with
 * `tx`, so a use is lost only to an enrolment that succeeds.
 * Throws ERR_IDENTITY_CODE_USED when the uses are spent, else ERR_IDENTITY_CODE_REFUSED.
 */
export async function claimInvite(tx: Tx, secret: Uint8Array, nowMs: number): Promise<Invite> {
  const secretHash = hashSecret(secret);
  const claimed = await tx
    .updateTable('invites')
    .set((eb) => ({ usesLeft: eb('usesLeft', '-', 1) }))
    .where('secretHash', '=', secretHash)
    .where('usesLeft', '>', 0)
    .where('revoked', '=', 0)
    .where('expiresAtMs', '>', nowMs)
    .returningAll()
    .executeTakeFirst();
  if (claimed) return claimed;
  const known = await tx
    .selectFrom('invites')
    .select(['usesLeft', 'revoked'])
    .where('secretHash', '=', secretHash)
    .executeTakeFirst();
  const isUsed = known?.usesLeft === 0 && known.revoked === 0;
  throw new ZtnaError(isUsed ? 'ERR_IDENTITY_CODE_USED' : 'ERR_IDENTITY_CODE_REFUSED', {
    hint: 'ask your administrator for a new code',
    reason: isUsed ? 'code_used' : 'code_refused',
  });
}

/** Looks at an invite without taking a use: only to choose what to ask for before the claim. */
export async function findInvite(tx: Tx, secret: Uint8Array): Promise<Invite | undefined> {
  return tx
    .selectFrom('invites')
    .selectAll()
    .where('secretHash', '=', hashSecret(secret))
    .executeTakeFirst();
}

/** The secret is 128 random bits, so a plain hash keeps it, and finding it by hash tells nothing by its timing. */
function hashSecret(secret: Uint8Array): string {
  return createHash('sha256').update(secret).digest('hex');
}
