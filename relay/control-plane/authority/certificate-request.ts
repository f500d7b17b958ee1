import { createPublicKey, verify, type KeyObject } from 'node:crypto';
import forge from 'node-forge';
import { ZtnaError } from '../../../protocol/index.ts';

/** The longest certificate request that is looked at, in characters of PEM. */
export const maxRequestLength = 8_192;

const minModulusBits = 2048;
const maxModulusBits = 4096;
const publicExponent = 65_537n;

/** AlgorithmIdentifier of RSA PKCS#1 v1.5 with SHA-256: the one signature that we ask for. */
const sha256WithRsa = Buffer.from('300d06092a864886f70d01010b0500', 'hex');

/** A public key whose owner proved to hold the private one. Made only by `verifyCertificateRequest`. */
export interface ProvedPublicKey {
  readonly __proved: unique symbol;
  readonly publicKey: KeyObject;
}

/**
 * Reads a PKCS#10 request and checks its own signature with node:crypto; node-forge, which does not check it,
 * only takes it apart. Everything else that the request says, its subject included, is ignored.
 * Throws ERR_IDENTITY_KEY_REFUSED for a bad signature, a key other than RSA 2048 to 4096 with exponent 65537,
 * or what is no request at all.
 */
export function verifyCertificateRequest(pem: string): ProvedPublicKey {
  if (pem.length > maxRequestLength) throw refused('request_too_large');
  const { signedBytes, signature, keyDer } = takeApart(pem);
  let publicKey: KeyObject;
  try {
    publicKey = createPublicKey({ key: keyDer, format: 'der', type: 'spki' });
  } catch (cause) {
    throw refused('request_key', cause);
  }
  const { modulusLength = 0, publicExponent: exponent } = publicKey.asymmetricKeyDetails ?? {};
  const isFit =
    publicKey.asymmetricKeyType === 'rsa' &&
    modulusLength >= minModulusBits &&
    modulusLength <= maxModulusBits &&
    exponent === publicExponent;
  if (!isFit) throw refused('request_key');
  if (!verify('sha256', signedBytes, publicKey, signature)) throw refused('request_signature');
  return { publicKey } as unknown as ProvedPublicKey;
}

interface RequestParts {
  readonly signedBytes: Buffer;
  readonly signature: Buffer;
  readonly keyDer: Buffer;
}

/** CertificationRequest ::= SEQUENCE { info SEQUENCE { version, subject, key, attributes }, algorithm, signature } */
function takeApart(pem: string): RequestParts {
  const { asn1 } = forge;
  try {
    const [message, ...rest] = forge.pem.decode(pem);
    if (message?.type !== 'CERTIFICATE REQUEST' || rest.length > 0) throw refused('request_form');
    const der = asn1.fromDer(message.body, true); // strict, and no byte left over
    const [info, algorithm, signature] = members(der, 3);
    const key = members(info, 4)[2];
    if (!info || !key || !algorithm || signature?.type !== asn1.Type.BITSTRING) {
      throw refused('request_form');
    }
    if (!toBuffer(algorithm).equals(sha256WithRsa)) throw refused('request_algorithm');
    return {
      signedBytes: toBuffer(info),
      keyDer: toBuffer(key),
      signature: bitStringOf(signature),
    };
  } catch (cause) {
    throw cause instanceof ZtnaError ? cause : refused('request_form', cause);
  }
}

function members(
  node: forge.asn1.Asn1 | undefined,
  count: number,
): (forge.asn1.Asn1 | undefined)[] {
  const list = node?.type === forge.asn1.Type.SEQUENCE ? node.value : undefined;
  if (!Array.isArray(list) || list.length !== count) throw refused('request_form');
  return list;
}

/** forge decodes bits that happen to look like DER; it keeps the text they came from. */
function bitStringOf(node: forge.asn1.Asn1 & { readonly bitStringContents?: string }): Buffer {
  const content = node.bitStringContents ?? node.value;
  if (typeof content !== 'string' || !content.startsWith('\0')) throw refused('request_form'); // unused bits
  return Buffer.from(content.slice(1), 'binary');
}

function toBuffer(node: forge.asn1.Asn1): Buffer {
  return Buffer.from(forge.asn1.toDer(node).getBytes(), 'binary');
}

function refused(reason: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_KEY_REFUSED', {
    message: 'the certificate request was refused',
    reason,
    cause,
  });
}
