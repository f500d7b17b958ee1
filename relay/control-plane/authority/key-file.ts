import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { closeSync, fsyncSync, openSync, writeSync } from 'node:fs';
import { readSecretFile, systemCode } from '../../../protocol/host/index.ts';
import { ZtnaError } from '../../../protocol/index.ts';

/** Writes a new file and syncs it; the default mode is for secrets. Throws ERR_CONFIG_EXISTS when there is one. */
export function createFile(path: string, text: string, mode = 0o600): void {
  let file: number;
  try {
    file = openSync(path, 'wx', mode);
  } catch (cause) {
    if (systemCode(cause) !== 'EEXIST') throw cause;
    throw new ZtnaError('ERR_CONFIG_EXISTS', { message: `${path} exists already`, cause });
  }
  try {
    writeSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
}

/** Makes an Ed25519 key in a new PKCS#8 PEM file, 0600. */
export function createSigningKeyFile(path: string): KeyObject {
  const { privateKey } = generateKeyPairSync('ed25519');
  createFile(path, privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
  return privateKey;
}

/**
 * Reads a private key of `type` from a PEM file. Throws as `readSecretFile` does, and ERR_CONFIG_INVALID when
 * it is no such key.
 */
export async function readKeyFile(path: string, type: 'ed25519' | 'rsa'): Promise<KeyObject> {
  const pem = await readSecretFile(path);
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    // The cause may quote what it could not read.
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${path} holds no private key` });
  }
  if (key.asymmetricKeyType !== type) {
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${path} does not hold an ${type} key` });
  }
  return key;
}
