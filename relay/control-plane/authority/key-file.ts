import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  writeSync,
} from 'node:fs';
import { ZtnaError } from '../../../protocol/index.ts';

/** Writes a new file and syncs it; the default mode is for secrets. Throws ERR_CONFIG_EXISTS when there is one. */
export function createFile(path: string, text: string, mode = 0o600): void {
  let file: number;
  try {
    file = openSync(path, 'wx', mode);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
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
 * Reads a private key of `type` from a PEM file. Throws ERR_CONFIG_NOT_FOUND, ERR_CONFIG_PERMISSIONS when
 * others could read it or it is a link, ERR_CONFIG_INVALID when it is no such key.
 */
export function readKeyFile(path: string, type: 'ed25519' | 'rsa'): KeyObject {
  const pem = readSecretFile(path);
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

/** The text of a file that its owner alone can read. Throws as `readKeyFile` does. */
export function readSecretFile(path: string): string {
  let file: number;
  try {
    file = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT') {
      throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `${path} is missing`, cause });
    }
    if (code === 'ELOOP') {
      throw new ZtnaError('ERR_CONFIG_PERMISSIONS', { message: `${path} is a link`, cause });
    }
    throw cause;
  }
  try {
    if (process.platform !== 'win32' && (fstatSync(file).mode & 0o077) !== 0) {
      throw new ZtnaError('ERR_CONFIG_PERMISSIONS', {
        message: `others can read ${path}`,
        hint: `fix: chmod 600 ${path}`,
      });
    }
    return readFileSync(file, 'utf8');
  } finally {
    closeSync(file);
  }
}
