import { createHash, createPublicKey, sign, verify, type KeyObject } from 'node:crypto';
import type * as v from 'valibot';
import { ZtnaError } from './errors.ts';
import { decodeMessage, encodeMessage, maxMessageBytes, type MessageSchema } from './message.ts';

/**
 * A signed statement: `kind.keyId.payload.signature`, the last three base64url or hex, where
 *
 *   keyId      first 16 hex digits of SHA-256(raw Ed25519 public key)
 *   payload    JSON in the canonical form of `encodeMessage`
 *   signature  Ed25519 over "ztna-statement-v1" 00 kind 00 keyId 00 payload bytes
 *
 * The kind is signed, so a signature made for one purpose serves no other; the algorithm is fixed by the
 * version, so there is nothing to negotiate.
 */
export type StatementKind =
  | 'bundle' // root key: keys and CAs of the deployment
  | 'roster' // roster key: one connector and its keys
  | 'grant' // grant key: permission to open one tunnel
  | 'lease' // grant key: how long tunnels may move bytes
  | 'log' // grant key: revocation log entries, complete up to a position
  | 'time' // grant key: control time for a nonce
  | 'relays' // grant key: where relays are
  | 'posture' // device's own key: facts about the device
  | 'receipt' // connector's or relay's own key: that a tunnel was cut, and when
  | 'service' // service's own key: signs it in on one device
  | 'enrolment' // new identity's own key: proves the keys it asks a certificate for
  | 'renewal' // identity's own key: asks for a new certificate
  | 'control-planes' // root key: every control plane and its keys
  | 'joining' // relay's own key and each key offered: a control plane that wants to join
  | 'checkpoint'; // audit key: head of the audit chain

const context = 'ztna-statement-v1';

export interface SigningKey {
  readonly keyId: string;
  readonly privateKey: KeyObject;
}

export interface VerifyingKey {
  readonly keyId: string;
  readonly publicKey: KeyObject;
}

const ed25519SpkiPrefix = Buffer.from('302a300506032b6570032100', 'hex');
const x25519SpkiPrefix = Buffer.from('302a300506032b656e032100', 'hex');

/** First 16 hex digits of the SHA-256 of a raw public key. */
export function keyIdOf(rawPublicKey: Uint8Array): string {
  return createHash('sha256').update(rawPublicKey).digest('hex').slice(0, 16);
}

/** The raw 32 bytes of an Ed25519 or X25519 public key, or of a private key's public half. */
export function rawPublicKey(key: KeyObject): Buffer {
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  return publicKey.export({ type: 'spki', format: 'der' }).subarray(-32);
}

/** An Ed25519 public key from its 32 raw bytes. */
export function ed25519PublicKey(raw: Uint8Array): KeyObject {
  return createPublicKey({
    key: Buffer.concat([ed25519SpkiPrefix, raw]),
    format: 'der',
    type: 'spki',
  });
}

/** An X25519 public key from its 32 raw bytes. */
export function x25519PublicKey(raw: Uint8Array): KeyObject {
  return createPublicKey({
    key: Buffer.concat([x25519SpkiPrefix, raw]),
    format: 'der',
    type: 'spki',
  });
}

export function signingKey(privateKey: KeyObject): SigningKey {
  return { keyId: keyIdOf(rawPublicKey(privateKey)), privateKey };
}

export function verifyingKey(raw: Uint8Array): VerifyingKey {
  return { keyId: keyIdOf(raw), publicKey: ed25519PublicKey(raw) };
}

function signedBytes(kind: StatementKind, keyId: string, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.from(`${context}\0${kind}\0${keyId}\0`), payload]);
}

/** Signs `value` as a statement of `kind`. Throws ERR_INTERNAL when it does not fit the schema. */
export function signStatement<S extends MessageSchema>(
  kind: StatementKind,
  schema: S,
  value: v.InferInput<S>,
  key: SigningKey,
): string {
  const payload = Buffer.from(encodeMessage(schema, value));
  const signature = sign(null, signedBytes(kind, key.keyId, payload), key.privateKey);
  return `${kind}.${key.keyId}.${payload.toString('base64url')}.${signature.toString('base64url')}`;
}

/**
 * Checks the cap, then the signature, and only then parses. Throws ERR_STATEMENT_REFUSED for anything but a
 * valid signature of that kind by one of `keys`, and the errors of `decodeMessage` for a payload that a
 * rightful signer should not have made.
 */
export function verifyStatement<S extends MessageSchema>(
  kind: StatementKind,
  schema: S,
  statement: string,
  keys: readonly VerifyingKey[],
  maxBytes: number = maxMessageBytes,
): v.InferOutput<S> {
  if (statement.length > maxBytes * 2) throw new ZtnaError('ERR_MESSAGE_TOO_LARGE');
  const parts = statement.split('.');
  const [statedKind, keyId, payloadText, signatureText] = parts;
  if (parts.length !== 4 || statedKind !== kind || !payloadText || !signatureText) {
    throw new ZtnaError('ERR_STATEMENT_REFUSED');
  }
  const key = keys.find((candidate) => candidate.keyId === keyId);
  const payload = Buffer.from(payloadText, 'base64url');
  const signature = Buffer.from(signatureText, 'base64url');
  if (
    !key ||
    signature.length !== 64 ||
    // Node's decoder skips what is not base64url; only one spelling of each statement counts.
    payload.toString('base64url') !== payloadText ||
    signature.toString('base64url') !== signatureText ||
    !verify(null, signedBytes(kind, key.keyId, payload), key.publicKey, signature)
  ) {
    throw new ZtnaError('ERR_STATEMENT_REFUSED');
  }
  return decodeMessage(schema, payload, maxBytes);
}
