import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createSecretKey,
  hkdfSync,
  type KeyObject,
} from 'node:crypto';
import { ZtnaError } from './errors.ts';

/** Every Noise message, and so every record, fits into this many bytes. */
export const maxNoiseMessageBytes = 65_535;

/** An AES-GCM tag, in bytes. */
export const tagBytes = 16;

/** The hash functions of the Noise specification. The wire uses SHA256; the others prove the code on more vectors. */
export type NoiseHash = 'SHA256' | 'SHA512' | 'BLAKE2s' | 'BLAKE2b';

const hashes = {
  SHA256: { name: 'sha256', bytes: 32 },
  SHA512: { name: 'sha512', bytes: 64 },
  BLAKE2s: { name: 'blake2s256', bytes: 32 },
  BLAKE2b: { name: 'blake2b512', bytes: 64 },
} as const satisfies Record<NoiseHash, { name: string; bytes: number }>;

const cipher = 'aes-256-gcm';
const cipherOptions = { authTagLength: tagBytes };
const empty = Buffer.alloc(0);

/** What both ends share once a handshake is done. */
export interface NoiseSecrets {
  /** Seals what the initiator sends. */
  readonly initiatorKey: KeyObject;
  /** Seals what the responder sends. */
  readonly responderKey: KeyObject;
  /** The transcript's hash: the same at both ends, different for every handshake. */
  readonly handshakeHash: Buffer;
  /** Key of `exportSecret`; independent of both record keys. */
  readonly exporterKey: KeyObject;
}

/**
 * Noise's SymmetricState for AES-GCM: transcript hash `h`, chaining key `ck`, cipher key `k` and nonce `n`,
 * named as in the specification, section 5.2. Any failure must end the handshake that owns it.
 */
export class SymmetricState {
  readonly #hash: (typeof hashes)[NoiseHash];
  #h: Buffer;
  #ck: Buffer;
  #k: KeyObject | undefined;
  #n = 0;

  constructor(protocolName: string, hash: NoiseHash) {
    this.#hash = hashes[hash];
    const name = Buffer.from(protocolName, 'ascii');
    this.#h =
      name.length <= this.#hash.bytes
        ? Buffer.concat([name, Buffer.alloc(this.#hash.bytes - name.length)])
        : createHash(this.#hash.name).update(name).digest();
    this.#ck = Buffer.from(this.#h);
  }

  mixHash(data: Uint8Array): void {
    this.#h = createHash(this.#hash.name).update(this.#h).update(data).digest();
  }

  mixKey(material: Uint8Array): void {
    const [ck, k] = this.#derivePair(material);
    this.#ck.fill(0);
    this.#ck = ck;
    this.#k = toCipherKey(k);
    this.#n = 0;
  }

  /** EncryptAndHash: ciphertext and tag. */
  seal(plaintext: Uint8Array): Buffer {
    const sealer = createCipheriv(cipher, this.#key(), this.#nextNonce(), cipherOptions);
    sealer.setAAD(this.#h);
    const body = sealer.update(plaintext);
    sealer.final();
    const sealed = Buffer.concat([body, sealer.getAuthTag()]);
    this.mixHash(sealed);
    return sealed;
  }

  /** DecryptAndHash. Throws ERR_HANDSHAKE_FAILED, and then nothing of the plaintext gets out. */
  open(sealed: Uint8Array): Buffer {
    const bodyBytes = sealed.length - tagBytes;
    if (bodyBytes < 0) throw new ZtnaError('ERR_HANDSHAKE_FAILED');
    const opener = createDecipheriv(cipher, this.#key(), this.#nextNonce(), cipherOptions);
    opener.setAAD(this.#h);
    opener.setAuthTag(sealed.subarray(bodyBytes));
    const plaintext = opener.update(sealed.subarray(0, bodyBytes));
    try {
      opener.final();
    } catch (cause) {
      plaintext.fill(0);
      throw new ZtnaError('ERR_HANDSHAKE_FAILED', { cause });
    }
    this.mixHash(sealed);
    return plaintext;
  }

  /** Split, which ends this state. */
  split(): NoiseSecrets {
    const [first, second] = this.#derivePair(empty);
    // Split's outputs are HMACs over one byte and over a hash with one byte: this text can be neither.
    const exporter = this.#derive(empty, 'ztna-exporter-v1', 32);
    const secrets = {
      initiatorKey: toCipherKey(first),
      responderKey: toCipherKey(second),
      handshakeHash: this.#h,
      exporterKey: createSecretKey(exporter),
    };
    exporter.fill(0);
    this.#ck.fill(0);
    this.#k = undefined;
    return secrets;
  }

  #derivePair(material: Uint8Array): [Buffer, Buffer] {
    const pair = this.#derive(material, '', 2 * this.#hash.bytes);
    return [pair.subarray(0, this.#hash.bytes), pair.subarray(this.#hash.bytes)];
  }

  /** RFC 5869's HKDF with `ck` as its salt; with no `info` it is Noise's own. */
  #derive(material: Uint8Array, info: string, bytes: number): Buffer {
    return Buffer.from(hkdfSync(this.#hash.name, material, this.#ck, info, bytes));
  }

  #key(): KeyObject {
    if (!this.#k) throw new ZtnaError('ERR_INTERNAL', { message: 'the handshake has no key yet' });
    return this.#k;
  }

  #nextNonce(): Buffer {
    const nonce = Buffer.alloc(12);
    writeNonce(nonce, this.#n++);
    return nonce;
  }
}

/** Writes Noise's AES-GCM nonce: 4 zero bytes, then the counter as a 64-bit big-endian number. */
export function writeNonce(nonce: Buffer, counter: number): void {
  nonce.writeUInt32BE(Math.floor(counter / 0x1_0000_0000), 4);
  nonce.writeUInt32BE(counter % 0x1_0000_0000, 8);
}

function toCipherKey(derived: Buffer): KeyObject {
  const key = createSecretKey(derived.subarray(0, 32)); // Noise cuts the longer hashes
  derived.fill(0);
  return key;
}
