import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';

/** Pairs from raw secrets, as test vectors give them; the programs never hold a key in this form. */
export function x25519Pair(raw: Uint8Array): { privateKey: KeyObject; publicKey: KeyObject } {
  return pair('302e020100300506032b656e04220420', raw);
}

export function ed25519Pair(seed: Uint8Array): { privateKey: KeyObject; publicKey: KeyObject } {
  return pair('302e020100300506032b657004220420', seed);
}

function pair(prefix: string, raw: Uint8Array): { privateKey: KeyObject; publicKey: KeyObject } {
  const key = Buffer.concat([Buffer.from(prefix, 'hex'), raw]);
  const privateKey = createPrivateKey({ key, format: 'der', type: 'pkcs8' });
  return { privateKey, publicKey: createPublicKey(privateKey) };
}
