import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  sign,
  type KeyObject,
} from 'node:crypto';
import { promisify } from 'node:util';
import type { asn1, pki } from 'node-forge';

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
  const { privateKey: key } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/**
 * A PKCS#10 request (PEM) for that key. Its subject says nothing: the issuer decides what goes into a certificate.
 * node-forge only lays the request out; node:crypto signs it, off the event loop, and forge never sees the private key.
 */
export async function createCertificateRequest(tlsKeyPem: string): Promise<string> {
  const { default: forge } = await import('node-forge');
  const { oids, getCertificationRequestInfo } = forge.pki as typeof forge.pki & LayOut;
  const key = createPrivateKey(tlsKeyPem);
  const publicKeyPem = createPublicKey(key).export({ type: 'spki', format: 'pem' }).toString();
  const request = forge.pki.createCertificationRequest() as Request;
  request.publicKey = forge.pki.publicKeyFromPem(publicKeyPem);
  request.setSubject([{ name: 'commonName', value: 'ztna' }]);
  const sha256WithRsa = oids['sha256WithRSAEncryption'] ?? '';
  request.signatureOid = sha256WithRsa;
  request.siginfo.algorithmOid = sha256WithRsa;
  request.certificationRequestInfo = getCertificationRequestInfo(request);
  const der = forge.asn1.toDer(request.certificationRequestInfo).getBytes();
  const signature = await signAsync('sha256', Buffer.from(der, 'binary'), key);
  request.signature = signature.toString('binary');
  return forge.pki.certificationRequestToPem(request).replaceAll('\r\n', '\n');
}

const signAsync = promisify(sign) as (
  algorithm: string,
  data: Uint8Array,
  key: KeyObject,
) => Promise<Buffer>;

/** Missing from forge's types: the part of a request that is signed. */
type Request = pki.CertificateSigningRequest & { certificationRequestInfo?: asn1.Asn1 };
interface LayOut {
  readonly getCertificationRequestInfo: (request: Request) => asn1.Asn1;
}

/** SHA-256 as base64url: how proofs name a secret or a certificate request. */
export function digestText(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('base64url');
}
