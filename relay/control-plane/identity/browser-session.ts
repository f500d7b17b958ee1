import { createHash, createHmac, randomBytes } from 'node:crypto';
import type { UserId } from '../../../protocol/index.ts';
import type { BrowserSession, User } from '../store/database.ts';
import type { Reader, Tx } from '../store/store.ts';
import type { Proof } from './sign-ins.ts';

/** How long a person is signed in on the pages; nothing prolongs it. */
export const browserSessionLifeMs = 900_000;

/** A person who is signed in on the pages. */
export interface SignedInBrowser {
  readonly session: BrowserSession;
  readonly user: User;
  readonly methods: readonly string[];
}

/** Signs a browser in. Answers the secret that it keeps; the store has only its hash. */
export async function startBrowserSession(
  tx: Tx,
  proof: Pick<Proof, 'user' | 'provider' | 'methods'>,
  { address, nowMs }: { readonly address: string; readonly nowMs: number },
): Promise<string> {
  await tx.deleteFrom('browserSessions').where('expiresAtMs', '<=', nowMs).execute();
  const token = randomBytes(32).toString('base64url');
  await tx
    .insertInto('browserSessions')
    .values({
      tokenHash: hashOf(token),
      userId: proof.user,
      provider: proof.provider,
      methodsJson: JSON.stringify(proof.methods),
      address,
      challenge: null,
      createdAtMs: nowMs,
      expiresAtMs: nowMs + browserSessionLifeMs,
    })
    .execute();
  return token;
}

/** Who is signed in with that secret, while the account is open. */
export async function findBrowserSession(
  db: Reader | Tx,
  token: string,
  nowMs: number,
): Promise<SignedInBrowser | undefined> {
  const session = await db
    .selectFrom('browserSessions')
    .selectAll()
    .where('tokenHash', '=', hashOf(token))
    .where('expiresAtMs', '>', nowMs)
    .executeTakeFirst();
  if (!session) return undefined;
  const user = await db
    .selectFrom('users')
    .selectAll()
    .where('id', '=', session.userId)
    .where('disabled', '=', 0)
    .where((eb) => eb.or([eb('expiresAtMs', 'is', null), eb('expiresAtMs', '>', nowMs)]))
    .executeTakeFirst();
  return user && { session, user, methods: JSON.parse(session.methodsJson) as string[] };
}

export async function endBrowserSession(tx: Tx, session: BrowserSession): Promise<void> {
  await tx.deleteFrom('browserSessions').where('tokenHash', '=', session.tokenHash).execute();
}

/** Signs the user out of all browsers. */
export async function endBrowserSessions(tx: Tx, userId: UserId): Promise<void> {
  await tx.deleteFrom('browserSessions').where('userId', '=', userId).execute();
}

/** Keeps what a new passkey is asked to sign, in place of what one was asked before. */
export async function keepChallenge(
  tx: Tx,
  { tokenHash }: BrowserSession,
  challenge: string,
): Promise<void> {
  await tx
    .updateTable('browserSessions')
    .set({ challenge })
    .where('tokenHash', '=', tokenHash)
    .execute();
}

/** Takes it, once. */
export async function takeChallenge(
  tx: Tx,
  { tokenHash }: BrowserSession,
): Promise<string | undefined> {
  const row = await tx
    .selectFrom('browserSessions')
    .select('challenge')
    .where('tokenHash', '=', tokenHash)
    .executeTakeFirst();
  const challenge = row?.challenge ?? undefined;
  if (challenge === undefined) return undefined;
  const taken = await tx
    .updateTable('browserSessions')
    .set({ challenge: null })
    .where('tokenHash', '=', tokenHash)
    .where('challenge', '=', challenge)
    .returning('tokenHash')
    .executeTakeFirst();
  return taken && challenge;
}

/** What forms of that session carry: only a page that was shown to it knows it. */
export function formTokenOf(token: string): string {
  return createHmac('sha256', token).update('form').digest('base64url');
}

function hashOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}
