import * as v from 'valibot';
import { createHash } from 'node:crypto';
import { ZtnaError } from './errors.ts';
import { idSchema, type ConnectorId, type InstanceId, type RelayId } from './id.ts';
import { sequenceSchema } from './lease.ts';
import { bytes, natural } from './schema.ts';
import { verifyStatement, x25519PublicKey } from './statement.ts';
import type { Bundle } from './bundle.ts';
import type { AuthenticatedPeer } from './noise-xk.ts';
import type { KeyObject } from 'node:crypto';

/**
 * The newest version of everything between agent, data plane, connector and control plane; it fixes the Noise suite.
 * A version adds messages and frames and never changes those there were, so either side of a release may be older.
 * 2: tunnels outlive their paths.
 */
export const wireVersion = 4;

/** From this version on a tunnel that is suspended is kept by its ends; older ones end. */
export const suspendableVersion = 3;

/** From this version on an agent may ask to sign in elsewhere than on its own terminal, and for what is its user's own. */
export const identityVersion = 4;

/** The oldest version that is still spoken. */
export const oldestWireVersion = 1;

/** What a hello offers. */
export const wireVersions = { min: oldestWireVersion, max: wireVersion } as const;

/** No grant lives longer, whoever signed it. */
export const maxGrantLifeMs = 60_000;

/** How far ahead of control time, as its verifier knows it, a grant may have been issued: slow clocks, not plans. */
export const maxGrantAheadMs = 5_000;

/** The largest grant statement, in characters: it travels in a request header and inside a handshake message. */
export const maxGrantLength = 4_096;

/** The largest roster statement, in characters; it travels beside the grant in handshake message 3. */
export const maxRosterLength = 16_384;

/** A connector and its keys, signed by the roster key: kind `roster`. */
export const rosterEntrySchema = v.strictObject({
  connector: idSchema('connector'),
  site: idSchema('site'),
  noiseKey: bytes(32), // X25519, the connector's Noise static
  signingKey: bytes(32), // Ed25519
  apps: v.pipe(v.array(idSchema('app')), v.maxLength(256)),
});
export type RosterEntry = v.InferOutput<typeof rosterEntrySchema>;

/**
 * Permission for one device to open (or, under a higher generation, resume) one tunnel: kind `grant`.
 * It never names a host or a port. All times are control time in milliseconds.
 */
export const grantSchema = v.strictObject({
  id: idSchema('grant'),
  version: natural,
  user: idSchema('user'),
  session: idSchema('session'),
  device: idSchema('device'),
  deviceKey: bytes(32), // X25519, the device's Noise static
  app: idSchema('app'),
  connector: idSchema('connector'),
  instance: idSchema('instance'), // the connector process; a restart voids the grant
  tunnel: idSchema('tunnel'),
  generation: natural, // path number of the tunnel, from 1
  decision: idSchema('decision'),
  policy: natural, // policy version decided under
  incarnation: natural, // of the revocation log
  position: natural, // in the revocation log, read before the decision in the same transaction
  issuedAtMs: natural,
  expiresAtMs: natural,
  intervalMs: natural, // verification interval
  holdMs: natural, // how long a detached tunnel is kept
  sequence: sequenceSchema, // the first lease
  untilMs: natural,
  relays: v.pipe(v.array(idSchema('relay')), v.minLength(1), v.maxLength(16)),
});
export type Grant = v.InferOutput<typeof grantSchema>;

/** Who checked a grant, and so what its proof is good for. */
export type GrantVerifier = 'relay' | 'connector' | 'client';

declare const verifiedBy: unique symbol;

/** Proof that a grant was checked for its holder's purpose. Only the functions of this file make one. */
export interface VerifiedGrant<V extends GrantVerifier = GrantVerifier> extends Readonly<Grant> {
  readonly [verifiedBy]: V;
  readonly statement: string;
}

/** What the client needs besides the grant: the connector it may believe in. */
export interface VerifiedPermit {
  readonly __permit: unique symbol;
  readonly grant: VerifiedGrant<'client'>;
  readonly rosterStatement: string;
  readonly connectorKey: KeyObject;
}

/** SHA-256 of a grant statement: what the handshake's prologue binds. */
export function grantDigest(statement: string): Buffer {
  return createHash('sha256').update(statement).digest();
}

/**
 * What a grant claims: signature, size and version checked, nothing else. It serves a handshake's prologue, where
 * a wrong claim only makes the handshake fail; it permits nothing.
 * Throws ERR_STATEMENT_REFUSED, ERR_MESSAGE_TOO_LARGE or ERR_HANDSHAKE_VERSION.
 */
export function readGrantClaim(statement: string, bundle: Bundle): Grant {
  if (statement.length > maxGrantLength) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
  const known = claims.get(bundle)?.get(statement);
  if (known) return known;
  const grant = verifyStatement('grant', grantSchema, statement, bundle.grantKeys, maxGrantLength);
  const isSpoken = grant.version >= oldestWireVersion && grant.version <= wireVersion;
  if (!isSpoken) throw new ZtnaError('ERR_HANDSHAKE_VERSION');
  keepClaim(statement, grant, bundle);
  return grant;
}

/**
 * What each bundle's keys were found to have signed. An enforcer reads one grant up to three times, as it waits in between
 * for the handshake and the log; the same text and the same keys give the same answer, whatever has ended meanwhile.
 */
const claims = new WeakMap<Bundle, Map<string, Grant>>();
const maxClaims = 256;

function keepClaim(statement: string, grant: Grant, bundle: Bundle): void {
  const kept = claims.get(bundle) ?? new Map<string, Grant>();
  claims.set(bundle, kept.set(statement, grant));
  if (kept.size <= maxClaims) return;
  for (const oldest of kept.keys()) {
    kept.delete(oldest);
    return;
  }
}

function readGrant<V extends GrantVerifier>(
  statement: string,
  bundle: Bundle,
  nowMs: number,
): VerifiedGrant<V> {
  const grant = readGrantClaim(statement, bundle);
  const { issuedAtMs, expiresAtMs } = grant;
  const isOrdered = issuedAtMs <= expiresAtMs && issuedAtMs <= nowMs + maxGrantAheadMs;
  if (!isOrdered || expiresAtMs - issuedAtMs > maxGrantLifeMs) {
    throw new ZtnaError('ERR_GRANT_REFUSED');
  }
  if (nowMs >= expiresAtMs) throw new ZtnaError('ERR_GRANT_EXPIRED');
  if (nowMs >= bundle.notAfterMs) throw new ZtnaError('ERR_STATEMENT_REFUSED');
  return { ...grant, statement } as unknown as VerifiedGrant<V>;
}

/**
 * The data plane's check: a live grant by a grant key that names this relay. It says nothing about who holds it.
 * Throws ERR_STATEMENT_REFUSED, ERR_GRANT_EXPIRED, ERR_GRANT_REFUSED or ERR_GRANT_MISMATCH.
 */
export function verifyGrantAtRelay(
  statement: string,
  at: { readonly bundle: Bundle; readonly relay: RelayId; readonly nowMs: number },
): VerifiedGrant<'relay'> {
  const grant = readGrant<'relay'>(statement, at.bundle, at.nowMs);
  if (!grant.relays.includes(at.relay)) throw new ZtnaError('ERR_GRANT_MISMATCH');
  return grant;
}

/**
 * The connector's check, which decides last: a live grant for this very connector process, for the device whose
 * key the handshake proved. App map, single use and the revocation log are the caller's next steps.
 * Throws as above, and ERR_GRANT_MISMATCH for another connector, instance or device key.
 */
export function verifyGrantAtConnector(
  statement: string,
  at: {
    readonly bundle: Bundle;
    readonly connector: ConnectorId;
    readonly instance: InstanceId;
    /** From `ProvedClient`: the key that the handshake authenticated. */
    readonly peerStatic: AuthenticatedPeer;
    readonly nowMs: number;
  },
): VerifiedGrant<'connector'> {
  const grant = readGrant<'connector'>(statement, at.bundle, at.nowMs);
  const isOurs =
    grant.connector === at.connector &&
    grant.instance === at.instance &&
    Buffer.from(grant.deviceKey, 'base64url').equals(at.peerStatic);
  if (!isOurs) throw new ZtnaError('ERR_GRANT_MISMATCH');
  return grant;
}

/**
 * The client's check: the grant is for this device, and the roster vouches for the connector it names.
 * Throws as above.
 */
export function verifyPermit(
  permit: { readonly grant: string; readonly roster: string },
  at: {
    readonly bundle: Bundle;
    readonly device: string;
    readonly deviceKey: Uint8Array;
    readonly nowMs: number;
  },
): VerifiedPermit {
  const grant = readGrant<'client'>(permit.grant, at.bundle, at.nowMs);
  if (permit.roster.length > maxRosterLength) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
  const entry = verifyStatement('roster', rosterEntrySchema, permit.roster, at.bundle.rosterKeys);
  const isOurs =
    grant.device === at.device && Buffer.from(grant.deviceKey, 'base64url').equals(at.deviceKey);
  if (!isOurs || entry.connector !== grant.connector || !entry.apps.includes(grant.app)) {
    throw new ZtnaError('ERR_GRANT_MISMATCH');
  }
  return {
    grant,
    rosterStatement: permit.roster,
    connectorKey: x25519PublicKey(Buffer.from(entry.noiseKey, 'base64url')),
  } as unknown as VerifiedPermit;
}
