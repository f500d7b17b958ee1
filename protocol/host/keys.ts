import { createHash, createPrivateKey, generateKeyPair, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';

const generate = promisify(generateKeyPair);

const ed25519Pkcs8Prefix = Buffer.from('302e020100300506032b657004220420', 'hex');
const x25519Pkcs8Prefix = Buffer.from('302e020100300506032b656e04220420', 'hex');

function privateKey(prefix: Buffer, secret: Uint8Array): KeyObject {
  const der = Buffer.concat([prefix, secret]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  der.fill(0);
  secret.fill(0);
  return key;
}

/** A fresh Ed25519 identity key, made by tweetnacl. */
export async function createSigningKey(): Promise<KeyObject> {
  const { default: nacl } = await import('tweetnacl');
  return privateKey(ed25519Pkcs8Prefix, nacl.sign.keyPair().secretKey.slice(0, 32));
}

/** A fresh X25519 key for the Noise handshake, made by tweetnacl. */
export async function createNoiseKey(): Promise<KeyObject> {
  const { default: nacl } = await import('tweetnacl');
  return privateKey(x25519Pkcs8Prefix, nacl.box.keyPair().secretKey);
}

/** A fresh RSA-2048 key for TLS as PKCS#8 PEM, made off the event loop. */
export async function createTlsKey(): Promise<string> {
  const { privateKey: key } = await generate('rsa', { modulusLength: 2048 });
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** A PKCS#10 request (PEM) for that key. Its subject says nothing: the issuer decides what goes into a certificate. */
export async function createCertificateRequest(tlsKeyPem: string): Promise<string> {
  const { default: forge } = await import('node-forge');
  const key = forge.pki.privateKeyFromPem(tlsKeyPem);
  const request = forge.pki.createCertificationRequest();
  request.publicKey = forge.pki.setRsaPublicKey(key.n, key.e);
  request.setSubject([{ name: 'commonName', value: 'ztna' }]);
  request.sign(key, forge.md.sha256.create());
  return forge.pki.certificationRequestToPem(request).replaceAll('\r\n', '\n');
}

/** SHA-256 as base64url: how proofs name a secret or a certificate request. */
export function digestText(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('base64url');
}
