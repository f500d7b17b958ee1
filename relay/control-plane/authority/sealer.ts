import { createHmac, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import nacl from 'tweetnacl';
import { readSecretFile } from '../../../protocol/host/index.ts';
import { ZtnaError } from '../../../protocol/index.ts';
import { createFile } from './key-file.ts';

const sealKeyFile = 'seal.key';

/**
 * Seals what is secret in the store, so that who reads the store, or a copy of it, does not read that. Every control plane of
 * a deployment has the same key, which is in none of them but its state directory.
 */
export class Sealer {
  readonly #key: Buffer;

  /** 32 bytes. */
  constructor(key: Buffer) {
    this.#key = key;
  }

  /** `about` says what it is and whose: what is sealed opens nowhere else. */
  seal(text: string, about: string): string {
    const nonce = randomBytes(nacl.secretbox.nonceLength);
    const box = nacl.secretbox(Buffer.from(text, 'utf8'), nonce, this.#keyFor(about));
    return Buffer.concat([nonce, box]).toString('base64url');
  }

  /** Throws ERR_STATEMENT_REFUSED for what was sealed by another key, or about something else. */
  open(sealed: string, about: string): string {
    const bytes = Buffer.from(sealed, 'base64url');
    const nonce = bytes.subarray(0, nacl.secretbox.nonceLength);
    const box = bytes.subarray(nacl.secretbox.nonceLength);
    const isWhole = nonce.length === nacl.secretbox.nonceLength;
    const text = isWhole ? nacl.secretbox.open(box, nonce, this.#keyFor(about)) : null;
    if (!text) throw new ZtnaError('ERR_STATEMENT_REFUSED', { reason: 'seal_other' });
    return Buffer.from(text).toString('utf8');
  }

  /** The key itself, for a further control plane of this deployment. */
  share(): string {
    return this.#key.toString('base64url');
  }

  #keyFor(about: string): Buffer {
    return createHmac('sha256', this.#key).update(about).digest();
  }
}

/**
 * Reads the key that seals, in a control plane's state directory; one is made where there is none yet. Throws as
 * `readSecretFile`, and ERR_CONFIG_INVALID.
 */
export async function openSealer(directory: string): Promise<Sealer> {
  const path = join(directory, sealKeyFile);
  if (!existsSync(path)) writeSealKey(directory, randomBytes(nacl.secretbox.keyLength));
  const key = Buffer.from((await readSecretFile(path)).trim(), 'base64url');
  if (key.length === nacl.secretbox.keyLength) return new Sealer(key);
  throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${path} holds no key of 32 bytes` });
}

/** Throws ERR_CONFIG_EXISTS where there is one. */
export function writeSealKey(directory: string, key: Buffer): void {
  createFile(join(directory, sealKeyFile), `${key.toString('base64url')}\n`);
}
