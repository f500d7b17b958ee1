import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import * as v from 'valibot';
import { ZtnaError } from '../errors.ts';
import { verifyBundle, type Bundle } from '../bundle.ts';
import { rawPublicKey } from '../statement.ts';
import {
  openSealed,
  passphraseFileVariable,
  readPassphrase,
  sealedSchema,
  sealText,
} from './seal.ts';
import { openStateDir, readSecretFile, writeSecretFile } from './state-dir.ts';

/** What an enrolled machine is and holds. Kept in one file, so that no half of it can be newer than the other. */
export interface Identity {
  /** `dev_…`, `con_…` or `rel_…`. */
  readonly id: string;
  readonly role: 'device' | 'connector' | 'data-plane';
  readonly relayUrl: string;
  /** SHA-256 of the pinned root, lower-case hex. */
  readonly rootId: string;
  readonly tlsKeyPem: string;
  readonly certificatePem: string;
  /** Ed25519, private. */
  readonly signingKey: KeyObject;
  /** X25519, private: the Noise static. */
  readonly noiseKey: KeyObject;
  /** Its public half, 32 raw bytes. */
  readonly noisePublicKey: Buffer;
  /** The newest bundle seen; its statement is what is kept. */
  readonly bundle: Bundle;
  /** Names to show: `user`, `name`, `hostname` … */
  readonly profile: Readonly<Record<string, string>>;
}

const identityFile = 'identity.json';

const pem = v.pipe(v.string(), v.maxLength(65_536));

const fileSchema = v.strictObject({
  format: v.literal(1),
  id: v.string(),
  role: v.picklist(['device', 'connector', 'data-plane']),
  relayUrl: v.string(),
  rootId: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  tlsKey: pem,
  certificate: pem,
  signingKey: pem,
  noiseKey: pem,
  bundle: v.string(),
  profile: v.record(v.string(), v.string()),
});

const anySchema = v.union([sealedSchema, fileSchema]);

function damaged(dir: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${join(dir, identityFile)} is damaged`,
    hint: 'restore it, or enrol this machine again',
    hop: 'client',
    reason: 'identity_damaged',
    cause,
  });
}

async function readIdentityFile(dir: string): Promise<v.InferOutput<typeof anySchema> | undefined> {
  let text: string;
  try {
    text = await readSecretFile(join(dir, identityFile));
  } catch (error) {
    if (error instanceof ZtnaError && error.code === 'ERR_CONFIG_NOT_FOUND') return undefined;
    throw error;
  }
  return parse(dir, anySchema, text);
}

function parse<S extends v.GenericSchema<unknown, unknown>>(
  dir: string,
  schema: S,
  text: string,
): v.InferOutput<S> {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw damaged(dir); // The cause would quote the file, which holds keys.
  }
  const result = v.safeParse(schema, json);
  if (!result.success) throw damaged(dir);
  return result.output;
}

/** True when the identity kept in `dir` is sealed under a passphrase. False also when there is none. */
export async function isSealed(dir: string): Promise<boolean> {
  const file = await readIdentityFile(dir);
  return file !== undefined && 'sealed' in file;
}

/**
 * The identity kept in `dir`, or undefined when this machine is not enrolled there. Throws ERR_CONFIG_INVALID for a
 * damaged file or a missing passphrase, ERR_CONFIG_PERMISSIONS, or ERR_STATEMENT_REFUSED when its bundle has ended.
 */
export async function loadIdentity(dir: string): Promise<Identity | undefined> {
  const stateDir = await openStateDir(dir);
  let file = await readIdentityFile(stateDir);
  if (file === undefined) return undefined;
  if ('sealed' in file) {
    const passphrase = await readPassphrase();
    if (passphrase === undefined) {
      throw new ZtnaError('ERR_CONFIG_INVALID', {
        message: 'the keys of this machine are sealed and no passphrase was given',
        hint: `name the file that holds it in ${passphraseFileVariable}`,
        hop: 'client',
        reason: 'passphrase_missing',
      });
    }
    file = parse(stateDir, fileSchema, await openSealed(file, passphrase));
  }
  let keys;
  try {
    keys = { signing: createPrivateKey(file.signingKey), noise: createPrivateKey(file.noiseKey) };
    if (!new X509Certificate(file.certificate).checkPrivateKey(createPrivateKey(file.tlsKey))) {
      throw damaged(stateDir);
    }
  } catch (cause) {
    throw damaged(stateDir, cause);
  }
  return {
    id: file.id,
    role: file.role,
    relayUrl: file.relayUrl,
    rootId: file.rootId,
    tlsKeyPem: file.tlsKey,
    certificatePem: file.certificate,
    signingKey: keys.signing,
    noiseKey: keys.noise,
    noisePublicKey: rawPublicKey(keys.noise),
    bundle: verifyBundle(file.bundle, { rootId: file.rootId, minVersion: 0 }, Date.now()),
    profile: file.profile,
  };
}

/**
 * Keeps the identity in `dir`, durably and in one step, sealed when this machine has a passphrase: what was kept
 * before stays whole until the new one is on disk.
 */
export async function saveIdentity(dir: string, identity: Identity): Promise<void> {
  const stateDir = await openStateDir(dir);
  const toPem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }).toString();
  const file: v.InferOutput<typeof fileSchema> = {
    format: 1,
    id: identity.id,
    role: identity.role,
    relayUrl: identity.relayUrl,
    rootId: identity.rootId,
    tlsKey: identity.tlsKeyPem,
    certificate: identity.certificatePem,
    signingKey: toPem(identity.signingKey),
    noiseKey: toPem(identity.noiseKey),
    bundle: identity.bundle.statement,
    profile: { ...identity.profile },
  };
  const text = JSON.stringify(file, null, 2);
  const passphrase = await readPassphrase();
  const kept =
    passphrase === undefined ? text : JSON.stringify(await sealText(text, passphrase), null, 2);
  await writeSecretFile(join(stateDir, identityFile), `${kept}\n`);
}
