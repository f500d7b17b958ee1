import { createCipheriv, createHash, createHmac } from 'node:crypto';
import nacl from 'tweetnacl';

const hashNames = {
  SHA256: 'sha256',
  SHA512: 'sha512',
  BLAKE2s: 'blake2s256',
  BLAKE2b: 'blake2b512',
} as const;

/**
 * Noise's SymmetricState again, slow and word by word from the specification: HKDF by hand from HMAC, X25519 by
 * tweetnacl. It shares no code with `protocol/`, so it serves as oracle, and as a dishonest peer.
 */
export class NoiseTwin {
  h: Buffer;
  ck: Buffer;
  k: Buffer = Buffer.alloc(32);
  n = 0n;
  readonly hash: string;

  constructor(hash: keyof typeof hashNames, prologue: Uint8Array, responderStatic: Uint8Array) {
    this.hash = hashNames[hash];
    const name = Buffer.from(`Noise_XK_25519_AESGCM_${hash}`);
    this.h = Buffer.alloc(createHash(this.hash).digest().length);
    name.copy(this.h); // every one of our names is shorter than its hash
    this.ck = Buffer.from(this.h);
    this.mixHash(prologue);
    this.mixHash(responderStatic);
  }

  mixHash(data: Uint8Array): void {
    this.h = createHash(this.hash)
      .update(Buffer.concat([this.h, data]))
      .digest();
  }

  /** `agreed` is the result of X25519, or what a dishonest peer makes of it. */
  mixKey(agreed: Uint8Array): void {
    [this.ck, this.k] = this.hkdf(agreed);
    this.k = this.k.subarray(0, 32);
    this.n = 0n;
  }

  hkdf(material: Uint8Array): [Buffer, Buffer] {
    const hmac = (key: Uint8Array, data: Uint8Array) =>
      createHmac(this.hash, key).update(data).digest();
    const temp = hmac(this.ck, material);
    const first = hmac(temp, Buffer.from([1]));
    return [first, hmac(temp, Buffer.concat([first, Buffer.from([2])]))];
  }

  seal(plaintext: Uint8Array): Buffer {
    const sealed = sealAt(this.k, this.n++, plaintext, this.h);
    this.mixHash(sealed);
    return sealed;
  }

  /** Takes the other side's sealed bytes into the transcript without looking into them. */
  skip(sealed: Uint8Array): void {
    this.n++;
    this.mixHash(sealed);
  }
}

/** AES-256-GCM with Noise's nonce. */
export function sealAt(key: Uint8Array, n: bigint, plaintext: Uint8Array, ad: Uint8Array): Buffer {
  const nonce = Buffer.alloc(12);
  nonce.writeBigUInt64BE(n, 4);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(ad);
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

export interface TwinInput {
  readonly hash: keyof typeof hashNames;
  readonly prologue: Uint8Array;
  readonly initiatorStatic: Uint8Array;
  readonly initiatorEphemeral: Uint8Array;
  readonly responderStatic: Uint8Array;
  readonly responderEphemeral: Uint8Array;
  /** Three for the handshake, then transport messages: the responder's first, in turns. */
  readonly payloads: readonly Uint8Array[];
}

/** The whole conversation as anybody who held all four secret keys would write it. */
export function twinTranscript(input: TwinInput): { messages: Buffer[]; handshakeHash: Buffer } {
  const publicOf = (secret: Uint8Array) => Buffer.from(nacl.scalarMult.base(secret));
  const is = input.initiatorStatic;
  const ie = input.initiatorEphemeral;
  const rs = input.responderStatic;
  const re = input.responderEphemeral;
  const [p1 = Buffer.alloc(0), p2 = p1, p3 = p1, ...rest] = input.payloads;
  const twin = new NoiseTwin(input.hash, input.prologue, publicOf(rs));
  const messages: Buffer[] = [];
  twin.mixHash(publicOf(ie));
  twin.mixKey(nacl.scalarMult(ie, publicOf(rs))); // es
  messages.push(Buffer.concat([publicOf(ie), twin.seal(p1)]));
  twin.mixHash(publicOf(re));
  twin.mixKey(nacl.scalarMult(re, publicOf(ie))); // ee
  messages.push(Buffer.concat([publicOf(re), twin.seal(p2)]));
  const s = twin.seal(publicOf(is));
  twin.mixKey(nacl.scalarMult(is, publicOf(re))); // se
  messages.push(Buffer.concat([s, twin.seal(p3)]));
  const keys = twin.hkdf(Buffer.alloc(0)).map((key) => key.subarray(0, 32));
  rest.forEach((payload, index) => {
    const key = keys[1 - (index % 2)] ?? Buffer.alloc(0);
    messages.push(sealAt(key, BigInt(index >> 1), payload, Buffer.alloc(0)));
  });
  return { messages, handshakeHash: twin.h };
}
