import { diffieHellman, generateKeyPairSync } from 'node:crypto';
import { x25519PublicKey, ZtnaError } from '../../../protocol/index.ts';

const fieldPrime = 2n ** 255n - 19n;

/** y coordinates of the eight points of small order on Ed25519. */
const smallOrderYs = new Set([
  0n,
  1n,
  fieldPrime - 1n,
  0x7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7n,
  0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n,
]);

/**
 * Refuses Ed25519 keys under which a signature proves nothing: points of small order, and encodings that
 * are not the canonical one. That the point is on the curve shows when the first signature verifies.
 * Throws ERR_IDENTITY_KEY_REFUSED.
 */
export function checkSigningKey(raw: Uint8Array): void {
  if (raw.length !== 32) throw refused('signing_key_length');
  const bigEndian = Buffer.from(raw).reverse();
  bigEndian[0] = (bigEndian[0] ?? 0) & 0x7f; // the sign of x
  const y = BigInt('0x' + bigEndian.toString('hex'));
  if (y >= fieldPrime || smallOrderYs.has(y)) throw refused('signing_key_weak');
}

/** Refuses X25519 keys with which every exchange ends in zeros. Throws ERR_IDENTITY_KEY_REFUSED. */
export function checkNoiseKey(raw: Uint8Array): void {
  if (raw.length !== 32) throw refused('noise_key_length');
  if (((raw[31] ?? 0) & 0x80) !== 0) throw refused('noise_key_encoding');
  const { privateKey } = generateKeyPairSync('x25519');
  try {
    // OpenSSL refuses an all-zero result.
    diffieHellman({ privateKey, publicKey: x25519PublicKey(raw) });
  } catch (cause) {
    throw refused('noise_key_weak', cause);
  }
}

function refused(reason: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_KEY_REFUSED', { reason, cause });
}
