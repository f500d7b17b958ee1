import { randomBytes, scrypt } from 'node:crypto';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { ZtnaError } from '../errors.ts';
import { bytes } from '../schema.ts';
import { systemCode } from './state-dir.ts';

/** Names of the passphrase that seals keys at rest: a file, or a systemd credential. */
export const passphraseFileVariable = 'ZTNA_KEY_PASSPHRASE_FILE';
export const passphraseCredential = 'ztna-key-passphrase';

const maxPassphraseBytes = 4_096;

/** scrypt at OWASP's least strength for 32 MiB of memory. A file may not ask for other work than this. */
const cost = { N: 32_768, r: 8, p: 3, maxmem: 64 * 1_048_576 } as const;

/** A sealed text: NaCl secretbox under a key that scrypt makes of the passphrase. */
export const sealedSchema = v.strictObject({
  sealed: v.literal('scrypt-secretbox-1'),
  salt: bytes(16),
  nonce: bytes(24),
  box: v.pipe(v.string(), v.maxLength(131_072), v.regex(/^[A-Za-z0-9_-]+$/)),
});
export type Sealed = v.InferOutput<typeof sealedSchema>;

/**
 * The passphrase this machine was given, or undefined when it was given none. Throws ERR_CONFIG_NOT_FOUND,
 * ERR_CONFIG_PERMISSIONS or ERR_CONFIG_INVALID when one was named but cannot be used.
 */
export async function readPassphrase(): Promise<string | undefined> {
  const named = process.env[passphraseFileVariable];
  if (named !== undefined && named !== '') return readPassphraseFile(named, true);
  const credentials = process.env['CREDENTIALS_DIRECTORY'];
  if (credentials === undefined || credentials === '') return undefined;
  try {
    // systemd guards this directory by an access list, which shows as group bits of the mode.
    return await readPassphraseFile(join(credentials, passphraseCredential), false);
  } catch (error) {
    if (error instanceof ZtnaError && error.code === 'ERR_CONFIG_NOT_FOUND') return undefined;
    throw error;
  }
}

async function readPassphraseFile(path: string, refusesWorld: boolean): Promise<string> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    const code = systemCode(cause);
    throw new ZtnaError(code === 'ENOENT' ? 'ERR_CONFIG_NOT_FOUND' : 'ERR_CONFIG_PERMISSIONS', {
      message: `the passphrase file ${path} cannot be read (${code ?? 'unknown'})`,
      hint: `see ${passphraseFileVariable}`,
      hop: 'client',
      cause,
    });
  }
  try {
    const stats = await file.stat();
    if (refusesWorld && process.platform !== 'win32' && (stats.mode & 0o007) !== 0) {
      throw new ZtnaError('ERR_CONFIG_PERMISSIONS', {
        message: `the passphrase file ${path} is open to everybody`,
        hint: `chmod 600 ${path}`,
        hop: 'client',
      });
    }
    const passphrase =
      stats.size > maxPassphraseBytes ? '' : (await file.readFile('utf8')).replace(/\r?\n$/, '');
    if (passphrase === '') {
      throw new ZtnaError('ERR_CONFIG_INVALID', {
        message: `the passphrase file ${path} is empty or too large`,
        hop: 'client',
      });
    }
    return passphrase;
  } finally {
    await file.close();
  }
}

async function deriveKey(passphrase: string, salt: Uint8Array): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    scrypt(passphrase, salt, 32, cost, (error, key) => {
      if (error) reject(error);
      else resolve(new Uint8Array(key));
    });
  });
}

/** Seals a text under a passphrase. */
export async function sealText(text: string, passphrase: string): Promise<Sealed> {
  const { default: nacl } = await import('tweetnacl');
  const salt = randomBytes(16);
  const nonce = randomBytes(24);
  const key = await deriveKey(passphrase, salt);
  const box = nacl.secretbox(new Uint8Array(Buffer.from(text)), new Uint8Array(nonce), key);
  key.fill(0);
  const toText = (data: Uint8Array) => Buffer.from(data).toString('base64url');
  return {
    sealed: 'scrypt-secretbox-1',
    salt: toText(salt),
    nonce: toText(nonce),
    box: toText(box),
  };
}

/** Opens a sealed text. Throws ERR_CONFIG_INVALID for another passphrase or a damaged text. */
export async function openSealed(sealed: Sealed, passphrase: string): Promise<string> {
  const { default: nacl } = await import('tweetnacl');
  const fromText = (text: string) => new Uint8Array(Buffer.from(text, 'base64url'));
  const key = await deriveKey(passphrase, fromText(sealed.salt));
  const opened = nacl.secretbox.open(fromText(sealed.box), fromText(sealed.nonce), key);
  key.fill(0);
  if (opened === null) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: 'the passphrase does not open the sealed keys',
      hint: `name the file with the right passphrase in ${passphraseFileVariable}`,
      hop: 'client',
      reason: 'passphrase_wrong',
    });
  }
  return Buffer.from(opened).toString('utf8');
}
