import { diffieHellman, generateKeyPairSync, hkdfSync, type KeyObject } from 'node:crypto';
import { ZtnaError } from './errors.ts';
import {
  maxNoiseMessageBytes,
  SymmetricState,
  tagBytes,
  type NoiseHash,
  type NoiseSecrets,
} from './noise-symmetric.ts';
import { rawPublicKey, x25519PublicKey } from './statement.ts';

/*
 * Noise_XK_25519_AESGCM_<hash>: the initiator knows the responder's static key beforehand, the responder
 * learns the initiator's under encryption.
 *
 *   <- s
 *   ...
 *   -> e, es        message 1: e (32) payload tag (16)
 *   <- e, ee        message 2: e (32) payload tag (16)
 *   -> s, se        message 3: s (32) tag (16) payload tag (16)
 */

const keyBytes = 32;

/** An X25519 key pair, made where it is used. */
export interface NoiseKeyPair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}

export interface NoiseOptions {
  /** What both ends must agree on without sending it. */
  readonly prologue: Uint8Array;
  /** This end's own static key pair. */
  readonly staticKeys: NoiseKeyPair;
  /** Default SHA256, the wire's. */
  readonly hash?: NoiseHash;
  /** Only for reproducing test vectors: a used ephemeral breaks every promise of the handshake. */
  readonly ephemeralForTestsOnly?: NoiseKeyPair;
}

/** The raw X25519 static key that a handshake has proved its peer to hold. Only a finished handshake makes one. */
export type AuthenticatedPeer = Readonly<Uint8Array> & { readonly __proved: unique symbol };

/** What a finished handshake leaves; each handshake gives it once. */
export interface NoiseResult extends NoiseSecrets {
  readonly peerStatic: AuthenticatedPeer;
}

/** A fresh X25519 key pair. */
export function newNoiseKeyPair(): NoiseKeyPair {
  return generateKeyPairSync('x25519');
}

/** 32 bytes bound to one handshake and one purpose, the same at both ends. */
export function exportSecret(secrets: NoiseSecrets, label: string): Buffer {
  return Buffer.from(
    hkdfSync('sha256', secrets.exporterKey, secrets.handshakeHash, `ztna-export-v1 ${label}`, 32),
  );
}

/**
 * The steps of one side, in order, each allowed once. A message that is refused ends the handshake for good,
 * so no later step can build upon it. Misuse by our own code throws ERR_INTERNAL.
 */
class Steps {
  #next = 0;

  take(step: number): void {
    const isInOrder = step === this.#next;
    this.#next = isInOrder ? step + 1 : Infinity;
    if (!isInOrder) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'handshake step out of order or repeated' });
    }
  }

  /** Runs a step whose failure ends the handshake: ERR_HANDSHAKE_FAILED, whatever went wrong with the bytes. */
  run<T>(step: number, work: () => T): T {
    this.take(step);
    try {
      return work();
    } catch (cause) {
      this.#next = Infinity;
      if (cause instanceof ZtnaError) throw cause;
      throw new ZtnaError('ERR_HANDSHAKE_FAILED', { cause });
    }
  }
}

/** The side that opens the tunnel: `writeMessage1`, `readMessage2`, `writeMessage3`, `finish`, each once. */
export class NoiseInitiator {
  readonly #steps = new Steps();
  readonly #state: SymmetricState;
  readonly #staticKeys: NoiseKeyPair;
  readonly #ephemeral: NoiseKeyPair;
  readonly #remoteStatic: KeyObject;
  #remoteEphemeral: KeyObject | undefined;

  constructor(options: NoiseOptions & { readonly remoteStatic: KeyObject }) {
    this.#staticKeys = options.staticKeys;
    this.#ephemeral = options.ephemeralForTestsOnly ?? newNoiseKeyPair();
    this.#remoteStatic = options.remoteStatic;
    this.#state = begin(options, options.remoteStatic);
  }

  /** Message 1 with its payload, which is not forward secret. */
  writeMessage1(payload: Uint8Array): Buffer {
    return this.#steps.run(0, () => {
      checkSize(keyBytes + payload.length + tagBytes);
      const e = rawPublicKey(this.#ephemeral.publicKey);
      this.#state.mixHash(e);
      this.#state.mixKey(agree(this.#ephemeral, this.#remoteStatic)); // es
      return Buffer.concat([e, this.#state.seal(payload)]);
    });
  }

  /** The payload of message 2. Throws ERR_HANDSHAKE_FAILED. */
  readMessage2(message: Uint8Array): Buffer {
    return this.#steps.run(1, () => {
      checkSize(message.length, keyBytes + tagBytes);
      this.#remoteEphemeral = readEphemeral(this.#state, message);
      this.#state.mixKey(agree(this.#ephemeral, this.#remoteEphemeral)); // ee
      return this.#state.open(message.subarray(keyBytes));
    });
  }

  /** Message 3 with its payload, which only the holder of the responder's key can read. */
  writeMessage3(payload: Uint8Array): Buffer {
    return this.#steps.run(2, () => {
      checkSize(keyBytes + payload.length + 2 * tagBytes);
      const s = this.#state.seal(rawPublicKey(this.#staticKeys.publicKey));
      this.#state.mixKey(agree(this.#staticKeys, must(this.#remoteEphemeral))); // se
      return Buffer.concat([s, this.#state.seal(payload)]);
    });
  }

  finish(): NoiseResult {
    return this.#steps.run(3, () => result(this.#state, rawPublicKey(this.#remoteStatic)));
  }
}

/** The side that is asked: `readMessage1`, `writeMessage2`, `readMessage3`, `finish`, each once. */
export class NoiseResponder {
  readonly #steps = new Steps();
  readonly #state: SymmetricState;
  readonly #staticKeys: NoiseKeyPair;
  readonly #ephemeral: NoiseKeyPair;
  #remoteEphemeral: KeyObject | undefined;
  #remoteStatic: Buffer | undefined;

  constructor(options: NoiseOptions) {
    this.#staticKeys = options.staticKeys;
    this.#ephemeral = options.ephemeralForTestsOnly ?? newNoiseKeyPair();
    this.#state = begin(options, options.staticKeys.publicKey);
  }

  /** The payload of message 1, which anybody may have sent or repeated. Throws ERR_HANDSHAKE_FAILED. */
  readMessage1(message: Uint8Array): Buffer {
    return this.#steps.run(0, () => {
      checkSize(message.length, keyBytes + tagBytes);
      this.#remoteEphemeral = readEphemeral(this.#state, message);
      this.#state.mixKey(agree(this.#staticKeys, this.#remoteEphemeral)); // es
      return this.#state.open(message.subarray(keyBytes));
    });
  }

  /** Message 2 with its payload. */
  writeMessage2(payload: Uint8Array): Buffer {
    return this.#steps.run(1, () => {
      checkSize(keyBytes + payload.length + tagBytes);
      const e = rawPublicKey(this.#ephemeral.publicKey);
      this.#state.mixHash(e);
      this.#state.mixKey(agree(this.#ephemeral, must(this.#remoteEphemeral))); // ee
      return Buffer.concat([e, this.#state.seal(payload)]);
    });
  }

  /** The payload of message 3, from the holder of the key that `finish` names. Throws ERR_HANDSHAKE_FAILED. */
  readMessage3(message: Uint8Array): Buffer {
    return this.#steps.run(2, () => {
      checkSize(message.length, keyBytes + 2 * tagBytes);
      this.#remoteStatic = this.#state.open(message.subarray(0, keyBytes + tagBytes));
      this.#state.mixKey(agree(this.#ephemeral, x25519PublicKey(this.#remoteStatic))); // se
      return this.#state.open(message.subarray(keyBytes + tagBytes));
    });
  }

  finish(): NoiseResult {
    return this.#steps.run(3, () => result(this.#state, must(this.#remoteStatic)));
  }
}

function begin(options: NoiseOptions, responderStatic: KeyObject): SymmetricState {
  const hash = options.hash ?? 'SHA256';
  const state = new SymmetricState(`Noise_XK_25519_AESGCM_${hash}`, hash);
  state.mixHash(options.prologue);
  state.mixHash(rawPublicKey(responderStatic)); // <- s
  return state;
}

/** X25519. OpenSSL refuses the all-zero result that a point of low order gives. */
function agree(own: NoiseKeyPair, publicKey: KeyObject): Buffer {
  return diffieHellman({ privateKey: own.privateKey, publicKey });
}

function readEphemeral(state: SymmetricState, message: Uint8Array): KeyObject {
  const e = message.subarray(0, keyBytes);
  state.mixHash(e);
  return x25519PublicKey(e);
}

function checkSize(bytes: number, least = 0): void {
  if (bytes < least || bytes > maxNoiseMessageBytes) throw new ZtnaError('ERR_HANDSHAKE_FAILED');
}

function result(state: SymmetricState, peerStatic: Buffer): NoiseResult {
  return { ...state.split(), peerStatic: peerStatic as unknown as AuthenticatedPeer };
}

function must<T>(value: T | undefined): T {
  if (value === undefined) throw new ZtnaError('ERR_INTERNAL');
  return value;
}
