import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';
import { ZtnaError } from './errors.ts';
import { maxNoiseMessageBytes, tagBytes, writeNonce } from './noise-symmetric.ts';

/*
 * A record is one transport message of Noise: ciphertext, tag (16). Its number, counted from 0 in each
 * direction, is the nonce and is never sent, so a record that is lost, repeated, moved or taken from elsewhere
 * does not open.
 */

/** The largest sealed record, tag included. */
export const maxRecordBytes = maxNoiseMessageBytes;

/** The largest content of a record. */
export const maxRecordContentBytes = maxRecordBytes - tagBytes;

/**
 * What one key may seal, in AES blocks (256 GiB of content). An attacker's advantage over AES-GCM grows with the
 * square of the blocks and is here still below 2^-60, TLS 1.3's own margin. Records are counted as at least two
 * blocks, so the record number stays far below 2^64. A fresh key comes with a fresh handshake, never in place.
 */
export const maxBlocksPerKey = 2 ** 34;

const cipher = 'aes-256-gcm';
const options = { authTagLength: tagBytes };

/** Below this a copy into one piece costs less than a second call into OpenSSL; above, the copy costs more. */
const gatherBytes = 16_384;
const scratch = Buffer.allocUnsafeSlow(gatherBytes);

/** Counts records under one key and makes their nonces; refuses at the key's limit, for good. */
class RecordCounter {
  readonly #nonce = Buffer.alloc(12);
  #next = 0;
  #blocksLeft: number;

  constructor(maxBlocks: number) {
    this.#blocksLeft = Math.min(maxBlocks, maxBlocksPerKey);
  }

  get blocksLeft(): number {
    return this.#blocksLeft;
  }

  /** The nonce of the next record; valid until the next call. */
  take(contentBytes: number): Buffer {
    const blocks = Math.ceil(contentBytes / 16) + 2; // content, tag, length
    if (blocks > this.#blocksLeft) {
      this.#blocksLeft = 0;
      throw new ZtnaError('ERR_RECORD_KEY_EXHAUSTED');
    }
    this.#blocksLeft -= blocks;
    writeNonce(this.#nonce, this.#next++);
    return this.#nonce;
  }
}

/** Seals one direction of a tunnel. */
export class RecordSealer {
  readonly #key: KeyObject;
  readonly #counter: RecordCounter;

  /** `maxBlocks` can only lower the limit. */
  constructor(key: KeyObject, maxBlocks: number = maxBlocksPerKey) {
    this.#key = key;
    this.#counter = new RecordCounter(maxBlocks);
  }

  /** Content bytes that this key may still seal, at most; open a new path well before it reaches zero. */
  get remainingBytes(): number {
    return this.#counter.blocksLeft * 16;
  }

  /**
   * Seals `parts` as one record and returns its pieces, to be written one after the other as one message.
   * Records must be sent in the order in which they were sealed. `parts` may be reused at once.
   * Throws ERR_RECORD_KEY_EXHAUSTED at the key's limit, ERR_INTERNAL when the content is too large.
   */
  seal(parts: readonly Uint8Array[]): Buffer[] {
    let contentBytes = 0;
    for (const part of parts) contentBytes += part.length;
    if (contentBytes > maxRecordContentBytes) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'record content is too large' });
    }
    const sealer = createCipheriv(cipher, this.#key, this.#counter.take(contentBytes), options);
    const pieces: Buffer[] = [];
    const [only] = parts;
    if (parts.length > 1 && contentBytes <= gatherBytes) {
      pieces.push(sealer.update(gather(parts, contentBytes)));
    } else if (parts.length === 1 && only) {
      pieces.push(sealer.update(only));
    } else {
      for (const part of parts) pieces.push(sealer.update(part));
    }
    sealer.final();
    pieces.push(sealer.getAuthTag());
    return pieces;
  }
}

function gather(parts: readonly Uint8Array[], contentBytes: number): Buffer {
  let at = 0;
  for (const part of parts) {
    scratch.set(part, at);
    at += part.length;
  }
  return scratch.subarray(0, contentBytes);
}

/** Opens one direction of a tunnel. The first record that does not open ends it. */
export class RecordOpener {
  readonly #key: KeyObject;
  readonly #counter: RecordCounter;
  #hasFailed = false;

  /** `maxBlocks` can only lower the limit. */
  constructor(key: KeyObject, maxBlocks: number = maxBlocksPerKey) {
    this.#key = key;
    this.#counter = new RecordCounter(maxBlocks);
  }

  /**
   * The content of the next record. Throws ERR_RECORD_TAMPERED for anything but the peer's next record, then and
   * ever after, and ERR_RECORD_KEY_EXHAUSTED past the key's limit.
   */
  open(message: Buffer): Buffer {
    const contentBytes = message.length - tagBytes;
    if (this.#hasFailed || contentBytes < 0 || message.length > maxRecordBytes) this.#fail();
    const opener = createDecipheriv(cipher, this.#key, this.#counter.take(contentBytes), options);
    opener.setAuthTag(message.subarray(contentBytes));
    const content = opener.update(message.subarray(0, contentBytes));
    try {
      opener.final();
    } catch (cause) {
      content.fill(0);
      this.#fail(cause);
    }
    return content;
  }

  #fail(cause?: unknown): never {
    this.#hasFailed = true;
    throw new ZtnaError('ERR_RECORD_TAMPERED', { cause });
  }
}
