import { isIP } from 'node:net';
import {
  generateAuthenticationOptions,
  generateRegistrationOptions,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
} from '@simplewebauthn/server';
import * as v from 'valibot';
import { ZtnaError, type UserId } from '../../../protocol/index.ts';
import type { Passkey, User } from '../store/database.ts';
import type { Reader, Store, Tx } from '../store/store.ts';

/** Passkeys of one user. */
export const maxPasskeysPerUser = 16;

/** Whom passkeys are for: browsers show them to pages of that host, and of those below it, alone. */
export interface RelyingParty {
  readonly id: string;
  readonly origin: string;
}

const encoded = (maxLength: number) =>
  v.pipe(v.string(), v.maxLength(maxLength), v.regex(/^[A-Za-z0-9_-]+$/));
const credential = {
  id: encoded(1_366),
  rawId: encoded(1_366),
  type: v.literal('public-key'),
  clientExtensionResults: v.strictObject({}),
};
const madeSchema = v.strictObject({
  ...credential,
  response: v.strictObject({
    attestationObject: encoded(16_384),
    clientDataJSON: encoded(4_096),
    transports: v.pipe(v.array(v.pipe(v.string(), v.regex(/^[a-z-]{1,32}$/))), v.maxLength(8)),
  }),
});
const usedSchema = v.strictObject({
  ...credential,
  response: v.strictObject({
    authenticatorData: encoded(4_096),
    clientDataJSON: encoded(4_096),
    signature: encoded(8_192),
    userHandle: v.exactOptional(encoded(128)),
  }),
});

/** Ed25519, ECDSA on P-256, RSA: what authenticators have. */
const algorithms = [-8, -7, -257];

/** Null for a deployment whose address has no name: passkeys belong to names. */
export function relyingPartyOf(settings: {
  readonly url: string;
  readonly passkeyDomain?: string | null;
}): RelyingParty | null {
  const { hostname, origin } = new URL(settings.url);
  if (isIP(hostname.replace(/^\[|\]$/g, '')) !== 0) return null;
  return { id: settings.passkeyDomain ?? hostname, origin };
}

export async function listPasskeys(db: Reader | Tx, userId: UserId): Promise<Passkey[]> {
  return db
    .selectFrom('passkeys')
    .selectAll()
    .where('userId', '=', userId)
    .orderBy('createdAtMs')
    .execute();
}

/** What a browser is given to make a passkey of, with a challenge that is to be kept. */
export async function newPasskeyOptions(
  party: RelyingParty,
  user: Pick<User, 'id' | 'name' | 'displayName'>,
  known: readonly Passkey[],
) {
  return generateRegistrationOptions({
    rpName: party.id,
    rpID: party.id,
    userName: user.name,
    userDisplayName: user.displayName ?? user.name,
    userID: new Uint8Array(Buffer.from(user.id)),
    attestationType: 'none',
    excludeCredentials: known.map(({ id }) => ({ id })),
    // One that the authenticator finds by itself, so that nobody has to type who it is.
    authenticatorSelection: { residentKey: 'required', userVerification: 'required' },
    supportedAlgorithmIDs: algorithms,
  });
}

/** Checks what the browser made of them. Throws ERR_IDENTITY_SIGN_IN_REFUSED (`passkey_refused`). */
export async function verifyNewPasskey(
  party: RelyingParty,
  challenge: string,
  made: unknown,
): Promise<Pick<Passkey, 'id' | 'publicKey' | 'counter' | 'transportsJson' | 'backedUp'>> {
  const response = parse(madeSchema, made);
  const { verified, registrationInfo } = await refusing(
    verifyRegistrationResponse({
      response,
      expectedChallenge: challenge,
      expectedOrigin: party.origin,
      expectedRPID: party.id,
      requireUserVerification: true,
      supportedAlgorithmIDs: algorithms,
    }),
  );
  if (!verified) throw refused('passkey_refused');
  const { credential: key, credentialBackedUp } = registrationInfo;
  return {
    id: key.id,
    publicKey: Buffer.from(key.publicKey).toString('base64url'),
    counter: key.counter,
    transportsJson: JSON.stringify(response.response.transports),
    backedUp: credentialBackedUp ? 1 : 0,
  };
}

/** Throws ERR_CONFIG_EXISTS for one that is known, ERR_LIMIT_DEVICES for one too many. */
export async function addPasskey(tx: Tx, passkey: Omit<Passkey, 'lastUsedAtMs'>): Promise<void> {
  const known = await listPasskeys(tx, passkey.userId);
  if (known.length >= maxPasskeysPerUser) {
    throw new ZtnaError('ERR_LIMIT_DEVICES', { hint: 'remove a passkey that is not used' });
  }
  const added = await tx
    .insertInto('passkeys')
    .values({ ...passkey, lastUsedAtMs: null })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .returning('id')
    .executeTakeFirst();
  if (!added)
    throw new ZtnaError('ERR_CONFIG_EXISTS', { message: 'that passkey is known already' });
}

/** Answers whether the user had it. */
export async function removePasskey(tx: Tx, userId: UserId, id: string): Promise<boolean> {
  const removed = await tx
    .deleteFrom('passkeys')
    .where('id', '=', id)
    .where('userId', '=', userId)
    .returning('id')
    .executeTakeFirst();
  return removed !== undefined;
}

/** Forgets all passkeys of the user. Answers how many there were. */
export async function removePasskeys(tx: Tx, userId: UserId): Promise<number> {
  const removed = await tx
    .deleteFrom('passkeys')
    .where('userId', '=', userId)
    .returning('id')
    .execute();
  return removed.length;
}

/** What a browser is given to sign in with; whose passkey it takes, the person chooses. */
export async function passkeyOptions(party: RelyingParty) {
  return generateAuthenticationOptions({ rpID: party.id, userVerification: 'required' });
}

/**
 * Answers whose passkey signed `challenge`, which the caller has taken so that it serves once. Throws
 * ERR_IDENTITY_SIGN_IN_REFUSED: `passkey_unknown`, `passkey_refused`, `passkey_replayed`, `user_not_active`.
 */
export async function provePasskey(
  { store, clock }: { readonly store: Store; readonly clock: { nowMs(): number } },
  party: RelyingParty,
  challenge: string,
  used: unknown,
): Promise<User> {
  const response = parse(usedSchema, used);
  const row = await store.db
    .selectFrom('passkeys')
    .selectAll()
    .where('id', '=', response.id)
    .executeTakeFirst();
  if (!row) throw refused('passkey_unknown');
  const { userHandle } = response.response;
  if (userHandle !== undefined && Buffer.from(userHandle, 'base64url').toString() !== row.userId) {
    throw refused('passkey_refused');
  }
  const { verified, authenticationInfo } = await refusing(
    verifyAuthenticationResponse({
      response,
      expectedChallenge: challenge,
      expectedOrigin: party.origin,
      expectedRPID: party.id,
      requireUserVerification: true,
      credential: {
        id: row.id,
        publicKey: new Uint8Array(Buffer.from(row.publicKey, 'base64url')),
        counter: row.counter,
      },
    }),
  );
  if (!verified) throw refused('passkey_refused');
  return store.write(async (tx) => {
    const nowMs = clock.nowMs();
    // A counter that does not go on is of a copy; authenticators without one say 0 each time.
    const noted = await tx
      .updateTable('passkeys')
      .set({ counter: authenticationInfo.newCounter, lastUsedAtMs: nowMs })
      .where('id', '=', row.id)
      .where('counter', '=', row.counter)
      .returning('id')
      .executeTakeFirst();
    if (!noted) throw refused('passkey_replayed');
    const user = await tx
      .selectFrom('users')
      .selectAll()
      .where('id', '=', row.userId)
      .executeTakeFirst();
    const isOpen = user?.disabled === 0 && (user.expiresAtMs === null || user.expiresAtMs > nowMs);
    // Who belongs to a provider is asked there: it may have closed the account.
    if (!isOpen || user.provider !== null) throw refused('user_not_active');
    return user;
  });
}

function parse<S extends v.GenericSchema>(schema: S, value: unknown): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (!result.success) throw refused('passkey_malformed');
  return result.output;
}

/** The library tells by exceptions what it does not accept. */
async function refusing<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    throw refused('passkey_refused', cause);
  }
}

function refused(reason: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason, cause });
}
