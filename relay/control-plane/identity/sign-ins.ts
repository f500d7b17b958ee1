import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { ZtnaError, type DeviceId, type ErrorCode, type UserId } from '../../../protocol/index.ts';
import type { Sealer } from '../authority/sealer.ts';
import type { SignIn } from '../store/database.ts';
import type { Reader, Tx } from '../store/store.ts';

/** How long a person has to sign in in a browser. */
export const signInLifeMs = 600_000;
/** How long the command then has to fetch the result, where a person carries the ticket there by hand. */
const ticketLifeMs = 300_000;

/** Who somebody proved to be, and how. */
export interface Proof {
  readonly user: UserId;
  readonly provider: string; // `local` for this deployment's own users
  readonly methods: readonly string[];
  readonly acr: string;
  /** In control time; a provider may remember a sign-in of before. */
  readonly authenticatedAtMs: number;
  /** What the provider gave to be asked again with. */
  readonly grant: ProvidedGrant | null;
}

export interface ProvidedGrant {
  readonly subject: string;
  readonly sid: string | null;
  readonly refreshToken: string | null;
  /** How often it is asked. */
  readonly recheckMs: number;
  readonly idToken: string;
}

/** Begins a sign-in of a device, of a machine that is to become one, or of a browser to its user's own page. */
export async function beginSignIn(
  tx: Tx,
  what: Pick<
    SignIn,
    'purpose' | 'deviceId' | 'provider' | 'challenge' | 'loopbackPort' | 'address'
  > & {
    readonly loopbackState?: string | null;
    readonly isStepUp: boolean;
    readonly nowMs: number;
  },
): Promise<SignIn> {
  const { nowMs, isStepUp, ...rest } = what;
  await tx
    .deleteFrom('signIns')
    .where('expiresAtMs', '<', nowMs - signInLifeMs)
    .execute();
  const row: SignIn = {
    ...rest,
    id: randomBytes(16).toString('base64url'),
    loopbackState: what.loopbackState ?? null,
    passkeyChallenge: null,
    isStepUp: isStepUp ? 1 : 0,
    state: 'begun',
    sealedState: null,
    sealedProof: null,
    ticketHash: null,
    errorCode: null,
    errorReason: null,
    createdAtMs: nowMs,
    expiresAtMs: nowMs + signInLifeMs,
  };
  await tx.insertInto('signIns').values(row).execute();
  return row;
}

/** The sign-in of that id that nobody has proved yet, or undefined. */
export async function findOpenSignIn(
  db: Reader | Tx,
  id: string,
  nowMs: number,
): Promise<SignIn | undefined> {
  return db
    .selectFrom('signIns')
    .selectAll()
    .where('id', '=', id)
    .where('state', '=', 'begun')
    .where('expiresAtMs', '>', nowMs)
    .executeTakeFirst();
}

/**
 * Notes who it turned out to be, once. Answers the ticket that the browser brings to the command which asked, or the person
 * types there: nobody else gets anywhere with the sign-in. Only where the person typed a code of the command's at a
 * provider there is no ticket. Throws ERR_IDENTITY_SIGN_IN_REFUSED (`sign_in_over`).
 */
export async function proveSignIn(
  tx: Tx,
  sealer: Sealer,
  id: string,
  proof: Proof,
  { nowMs, needsTicket }: { readonly nowMs: number; readonly needsTicket: boolean },
): Promise<string> {
  const ticket = randomBytes(32).toString('base64url');
  const proved = await tx
    .updateTable('signIns')
    .set({
      state: 'proved',
      sealedState: null,
      sealedProof: sealer.seal(JSON.stringify(proof), aboutProof(id)),
      ticketHash: needsTicket ? hashOf(ticket) : null,
      expiresAtMs: nowMs + ticketLifeMs,
    })
    .where('id', '=', id)
    .where('state', '=', 'begun')
    .where('expiresAtMs', '>', nowMs)
    .returning('id')
    .executeTakeFirst();
  if (!proved) throw refused('sign_in_over');
  return ticket;
}

/** Keeps what a passkey is asked to sign, in place of what one was asked before. */
export async function keepPasskeyChallenge(tx: Tx, id: string, challenge: string): Promise<void> {
  await tx
    .updateTable('signIns')
    .set({ passkeyChallenge: challenge })
    .where('id', '=', id)
    .where('state', '=', 'begun')
    .execute();
}

/** Takes it, once: what was signed serves no second time, whether or not it was right. */
export async function takePasskeyChallenge(tx: Tx, id: string): Promise<string | undefined> {
  const row = await tx
    .selectFrom('signIns')
    .select('passkeyChallenge')
    .where('id', '=', id)
    .executeTakeFirst();
  const challenge = row?.passkeyChallenge ?? undefined;
  if (challenge === undefined) return undefined;
  const taken = await tx
    .updateTable('signIns')
    .set({ passkeyChallenge: null })
    .where('id', '=', id)
    .where('passkeyChallenge', '=', challenge)
    .returning('id')
    .executeTakeFirst();
  return taken && challenge;
}

/** Notes that it came to nothing, and why; the command that asked is told. */
export async function refuseSignIn(
  tx: Tx,
  id: string,
  code: ErrorCode,
  reason: string,
): Promise<void> {
  await tx
    .updateTable('signIns')
    .set({ state: 'refused', sealedState: null, errorCode: code, errorReason: reason })
    .where('id', '=', id)
    .where('state', '=', 'begun')
    .execute();
}

/**
 * Takes the result of a sign-in, once: with the verifier of whoever began it, on the device that began it, and where a browser was
 * beside the command, with what that browser brought. Throws ERR_IDENTITY_SIGN_IN_PENDING while the person is at it and, without a ticket, until there is one, and
 * ERR_IDENTITY_SIGN_IN_REFUSED or what the sign-in was refused with.
 */
export async function redeemSignIn(
  tx: Tx,
  sealer: Sealer,
  given: {
    readonly id: string;
    readonly deviceId: DeviceId | null;
    readonly verifier: string;
    readonly ticket: string | null;
    readonly nowMs: number;
  },
): Promise<Proof> {
  const row = await tx
    .selectFrom('signIns')
    .selectAll()
    .where('id', '=', given.id)
    .executeTakeFirst();
  // Told alike, whatever is wrong: who has no right to the sign-in learns nothing of it.
  if (row?.deviceId !== given.deviceId) throw refused('sign_in_unknown');
  const challenge = createHash('sha256').update(given.verifier).digest('base64url');
  if (!isEqual(challenge, row.challenge)) throw refused('verifier_wrong');
  if (row.state === 'refused') {
    const reason = row.errorReason ?? 'refused';
    throw new ZtnaError(row.errorCode ?? 'ERR_IDENTITY_SIGN_IN_REFUSED', {
      message: `the sign-in was refused: ${reason.replaceAll('_', ' ')}`,
      reason,
    });
  }
  if (row.state === 'used') throw refused('ticket_used');
  if (row.expiresAtMs <= given.nowMs) throw refused('sign_in_over');
  if (row.state === 'begun') throw new ZtnaError('ERR_IDENTITY_SIGN_IN_PENDING');
  if (row.ticketHash !== null) {
    // The command only asks whether it is over: the browser is on its way there.
    if (given.ticket === null) throw new ZtnaError('ERR_IDENTITY_SIGN_IN_PENDING');
    if (!isEqual(hashOf(given.ticket), row.ticketHash)) throw refused('ticket_wrong');
  }
  const used = await tx
    .updateTable('signIns')
    .set({ state: 'used', sealedProof: null, ticketHash: null })
    .where('id', '=', row.id)
    .where('state', '=', 'proved')
    .returning('id')
    .executeTakeFirst();
  if (!used) throw refused('ticket_used');
  return JSON.parse(sealer.open(row.sealedProof ?? '', aboutProof(row.id))) as Proof;
}

function aboutProof(id: string): string {
  return `proof ${id}`;
}

function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

function isEqual(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

function refused(reason: string): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', {
    message: 'this sign-in is over, or was begun elsewhere',
    hint: 'begin again: ztna login',
    reason,
  });
}
