import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { isIP } from 'node:net';
import { promisify } from 'node:util';
import forge from 'node-forge';
import { roleUri, type Role } from '../../../protocol/host/index.ts';
import { ZtnaError } from '../../../protocol/index.ts';
import type { KeyObject } from 'node:crypto';

export interface LeafRequest {
  readonly role: Role;
  /** `cp`, `rel_…`, `con_…` or `dev_…`. */
  readonly id: string;
  /** Names and addresses that a server answers to; for servers only. */
  readonly hosts?: readonly string[];
  readonly lifeMs: number;
  readonly nowMs: number;
}

export interface IssuedCertificate {
  readonly pem: string;
  /** Lower-case hex. */
  readonly serial: string;
  readonly notAfterMs: number;
}

/** A certificate counts from this long before it was made: peers' clocks may be behind by 10 minutes. */
export const backdateMs = 15 * 60_000;

const authorityLifeMs = 10 * 365 * 86_400_000;

const sha256WithRsa = forge.pki.oids['sha256WithRSAEncryption'] ?? '';

const servers: readonly Role[] = ['control-plane', 'data-plane'];

/** Missing from forge's types: the part of a certificate that is signed. */
const { getTBSCertificate: layOut } = forge.pki as typeof forge.pki & {
  readonly getTBSCertificate: (certificate: forge.pki.Certificate) => forge.asn1.Asn1;
};

const signAsync = promisify(sign) as (
  algorithm: string,
  data: Uint8Array,
  key: KeyObject,
) => Promise<Buffer>;

/** A new self-signed RSA authority: key and certificate as PEM. */
export async function createCertificateAuthority(
  nowMs: number,
): Promise<{ readonly keyPem: string; readonly certificatePem: string }> {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const forgeKey = toForgeKey(publicKey);
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = forgeKey;
  certificate.serialNumber = newSerial();
  setValidity(certificate, nowMs - backdateMs, nowMs + authorityLifeMs);
  const name = [
    { name: 'commonName', value: `ztna ${randomBytes(4).toString('hex')}` },
    { name: 'organizationName', value: 'ztna certificate authority' },
  ];
  certificate.setSubject(name);
  certificate.setIssuer(name);
  certificate.setExtensions([
    { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
    { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    { name: 'subjectKeyIdentifier' },
  ]);
  return {
    keyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificatePem: await seal(certificate, privateKey),
  };
}

/**
 * Issues a leaf for `publicKey`. Role and id are the caller's word, never the requester's.
 * node-forge only lays the certificate out; node:crypto signs it, off the event loop.
 */
export async function issueCertificate(
  authority: { readonly certificatePem: string; readonly privateKey: KeyObject },
  publicKey: KeyObject,
  request: LeafRequest,
): Promise<IssuedCertificate> {
  const { role, id, hosts = [], lifeMs, nowMs } = request;
  if (!/^(?:cp|(?:rel|con|dev)_[0-9a-z]{26})$/.test(id)) {
    throw new ZtnaError('ERR_INTERNAL', { message: 'a certificate needs an id of its own' });
  }
  const issuer = forge.pki.certificateFromPem(authority.certificatePem);
  const notAfterMs = Math.min(nowMs + lifeMs, issuer.validity.notAfter.getTime());
  const certificate = forge.pki.createCertificate();
  certificate.publicKey = toForgeKey(publicKey);
  certificate.serialNumber = newSerial();
  setValidity(certificate, nowMs - backdateMs, notAfterMs);
  certificate.setSubject([{ name: 'commonName', value: id }]);
  certificate.setIssuer(issuer.subject.attributes);
  const isServer = servers.includes(role);
  certificate.setExtensions([
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'keyUsage', digitalSignature: true, critical: true },
    { name: 'extKeyUsage', clientAuth: true, serverAuth: isServer },
    { name: 'subjectKeyIdentifier' },
    {
      name: 'authorityKeyIdentifier',
      keyIdentifier: issuer.generateSubjectKeyIdentifier().getBytes(),
    },
    {
      name: 'subjectAltName',
      altNames: [
        { type: 6, value: roleUri({ role, id }) },
        ...(isServer ? hosts : []).map(toAltName),
      ],
    },
  ]);
  return {
    pem: await seal(certificate, authority.privateKey),
    serial: certificate.serialNumber,
    notAfterMs: certificate.validity.notAfter.getTime(),
  };
}

/** Signs what forge would sign, with node:crypto: forge's own RSA holds the event loop for tens of milliseconds. */
async function seal(certificate: forge.pki.Certificate, key: KeyObject): Promise<string> {
  certificate.md = forge.md.sha256.create();
  certificate.signatureOid = sha256WithRsa;
  certificate.siginfo.algorithmOid = sha256WithRsa;
  certificate.tbsCertificate = layOut(certificate);
  const der = Buffer.from(forge.asn1.toDer(certificate.tbsCertificate).getBytes(), 'binary');
  certificate.signature = (await signAsync('sha256', der, key)).toString('binary');
  return forge.pki.certificateToPem(certificate).replaceAll('\r\n', '\n');
}

function toForgeKey(publicKey: KeyObject): forge.pki.rsa.PublicKey {
  return forge.pki.publicKeyFromPem(publicKey.export({ type: 'spki', format: 'pem' }).toString());
}

/** 127 random bits, positive and never zero, as DER wants it. */
function newSerial(): string {
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  return serial.toString('hex');
}

function setValidity(certificate: forge.pki.Certificate, fromMs: number, untilMs: number): void {
  certificate.validity.notBefore = new Date(Math.floor(fromMs / 1000) * 1000);
  certificate.validity.notAfter = new Date(Math.floor(untilMs / 1000) * 1000);
}

function toAltName(host: string): { type: number; value?: string; ip?: string } {
  if (isIP(host)) return { type: 7, ip: host };
  if (
    !/^(?=.{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*$/i.test(
      host,
    )
  ) {
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${host} is no host name` });
  }
  return { type: 2, value: host };
}
