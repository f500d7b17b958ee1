import { createHash, createPublicKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { SignJWT } from 'jose';
import { readKeyFile, createFile } from '../authority/key-file.ts';
import { minKeyBits } from './limits.ts';
import type { Services } from '../services.ts';
import { writeMeta, type Reader } from '../store/index.ts';

/** What Security Event Tokens are signed with: an RSA key of this control plane's own. */
export interface TransmitterKey {
  readonly kid: string;
  readonly privateKey: KeyObject;
}

const fileName = 'signal-key.pem';
const metaPrefix = 'signal_key:';

/** Reads the key, or makes it; its public half lies in the store, where every control plane finds it to serve it. */
export async function openTransmitterKey(
  { store, self }: Pick<Services, 'store' | 'self'>,
  directory: string,
): Promise<TransmitterKey> {
  const path = join(directory, fileName);
  if (!existsSync(path)) {
    const made = await promisify(generateKeyPair)('rsa', { modulusLength: minKeyBits });
    createFile(path, made.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
  }
  const privateKey = await readKeyFile(path, 'rsa');
  const { n, e } = createPublicKey(privateKey).export({ format: 'jwk' });
  // RFC 7638: the members in this order, nothing between them.
  const kid = createHash('sha256')
    .update(JSON.stringify({ e, kty: 'RSA', n }))
    .digest('base64url');
  const jwk = { kty: 'RSA', use: 'sig', alg: 'RS256', kid, n, e };
  await store.write((tx) => writeMeta(tx, `${metaPrefix}${self.id}`, JSON.stringify(jwk)));
  return { kid, privateKey };
}

/** The key set of every control plane that has sent tokens, as receivers ask for it. */
export async function readKeySet(db: Reader): Promise<{ readonly keys: unknown[] }> {
  const rows = await db
    .selectFrom('meta')
    .select('value')
    .where('key', '>=', metaPrefix)
    .where('key', '<', `${metaPrefix}~`)
    .orderBy('key')
    .execute();
  return { keys: rows.map(({ value }) => JSON.parse(value) as unknown) };
}

/** What a token of ours claims; signed alike each time, as RS256 is without chance. */
export interface SetClaims {
  readonly jti: string;
  readonly iat: number;
  readonly sub_id: Readonly<Record<string, unknown>>;
  readonly events: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

export function signSet(
  key: TransmitterKey,
  claims: SetClaims,
  to: { readonly issuer: string; readonly audience: string },
): Promise<string> {
  return new SignJWT({ iss: to.issuer, aud: to.audience, ...claims })
    .setProtectedHeader({ alg: 'RS256', typ: 'secevent+jwt', kid: key.kid })
    .sign(key.privateKey);
}

/** Where receivers find out about us (Shared Signals 1.0, section 7). */
export const configurationPath = '/.well-known/ssf-configuration';
export const keySetPath = '/.well-known/jwks.json';

export function ssfConfiguration(issuer: string): Record<string, unknown> {
  return {
    spec_version: '1_0',
    issuer,
    jwks_uri: `${issuer}${keySetPath}`,
    delivery_methods_supported: ['urn:ietf:rfc:8935'],
    default_subjects: 'ALL',
  };
}
