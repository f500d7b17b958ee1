import './kept-rsa-keys.ts';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { isIP } from 'node:net';
import forge from 'node-forge';
import { bundleSchema, rootIdOf, verifyBundle, type Bundle } from '../../protocol/bundle.ts';
import { timeSchema } from '../../protocol/control-time.ts';
import { rawPublicKey, signingKey, signStatement } from '../../protocol/statement.ts';

/** A certificate with its key, both PEM. */
export interface TestCertificate {
  readonly keyPem: string;
  readonly certificatePem: string;
}

export interface CertificateWishes {
  /** `ztna://role/id`, or any other URI; none when left out. */
  readonly uris?: readonly string[];
  /** DNS names and IP addresses. Loopback and `localhost` when left out. */
  readonly hosts?: readonly string[];
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  /** Both uses when left out. */
  readonly uses?: readonly ('serverAuth' | 'clientAuth')[];
  /** PKCS#8; one key made once per process when left out. */
  readonly keyPem?: string;
}

const dayMs = 86_400_000;

function newKeyPem(): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

let shared: string | undefined;

/** An RSA key that certificates of tests may share: making one takes a tenth of a second. */
export function sharedKeyPem(): string {
  return (shared ??= newKeyPem());
}

/** A certificate authority of tests, issuing as the product's own does. */
export class TestCa {
  readonly certificatePem: string;
  readonly #key: forge.pki.rsa.PrivateKey;
  readonly #subject: forge.pki.CertificateField[];

  constructor(name = 'ztna test CA') {
    this.#key = forge.pki.privateKeyFromPem(newKeyPem());
    this.#subject = [{ name: 'commonName', value: name }];
    const certificate = this.#blank(
      this.#subject,
      forge.pki.setRsaPublicKey(this.#key.n, this.#key.e),
    );
    certificate.setExtensions([
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
      { name: 'subjectKeyIdentifier' },
    ]);
    certificate.sign(this.#key, forge.md.sha256.create());
    this.certificatePem = forge.pki.certificateToPem(certificate);
  }

  issue(wishes: CertificateWishes = {}): TestCertificate {
    const keyPem = wishes.keyPem ?? sharedKeyPem();
    const key = forge.pki.privateKeyFromPem(keyPem);
    return { keyPem, certificatePem: this.#sign(forge.pki.setRsaPublicKey(key.n, key.e), wishes) };
  }

  /** As the control plane does at enrolment: a certificate for the key of a PKCS#10 request. */
  issueFor(requestPem: string, wishes: CertificateWishes = {}): string {
    const request = forge.pki.certificationRequestFromPem(requestPem);
    if (!request.verify()) throw new Error('the request is not signed by its own key');
    return this.#sign(request.publicKey as forge.pki.rsa.PublicKey, wishes);
  }

  #sign(publicKey: forge.pki.rsa.PublicKey, wishes: CertificateWishes): string {
    const uses = wishes.uses ?? ['serverAuth', 'clientAuth'];
    const hosts = wishes.hosts ?? ['localhost', '127.0.0.1', '::1'];
    const certificate = this.#blank([{ name: 'commonName', value: 'leaf' }], publicKey);
    certificate.validity.notBefore = wishes.notBefore ?? certificate.validity.notBefore;
    certificate.validity.notAfter = wishes.notAfter ?? certificate.validity.notAfter;
    certificate.setExtensions([
      { name: 'basicConstraints', cA: false },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', ...Object.fromEntries(uses.map((use) => [use, true])) },
      {
        name: 'subjectAltName',
        altNames: [
          ...hosts.map((host) => (isIP(host) ? { type: 7, ip: host } : { type: 2, value: host })),
          ...(wishes.uris ?? []).map((value) => ({ type: 6, value })),
        ],
      },
    ]);
    certificate.sign(this.#key, forge.md.sha256.create());
    return forge.pki.certificateToPem(certificate);
  }

  #blank(
    subject: forge.pki.CertificateField[],
    publicKey: forge.pki.rsa.PublicKey,
  ): forge.pki.Certificate {
    const certificate = forge.pki.createCertificate();
    certificate.publicKey = publicKey;
    certificate.serialNumber = `4${randomBytes(15).toString('hex').slice(1)}`; // positive without padding, as DER asks
    certificate.validity.notBefore = new Date(Date.now() - dayMs);
    certificate.validity.notAfter = new Date(Date.now() + dayMs);
    certificate.setSubject(subject);
    certificate.setIssuer(this.#subject);
    return certificate;
  }
}

function newSigner() {
  return signingKey(generateKeyPairSync('ed25519').privateKey);
}

function rawText(key: ReturnType<typeof newSigner>): string {
  return rawPublicKey(key.privateKey).toString('base64url');
}

/** A CA with the root and signing keys of one deployment, whose bundle really lists that CA. */
export class TestPki {
  readonly ca = new TestCa();
  readonly root = newSigner();
  readonly grantKey = newSigner();
  readonly rosterKey = newSigner();
  readonly rootId = rootIdOf(rawPublicKey(this.root.privateKey));
  readonly bundle: Bundle = verifyBundle(
    this.signBundle(),
    { rootId: this.rootId, minVersion: 0 },
    Date.now(),
  );

  signBundle(changes: Record<string, unknown> = {}): string {
    const bundle = {
      version: 1,
      root: rawText(this.root),
      nextRoot: null,
      grantKeys: [rawText(this.grantKey)],
      rosterKeys: [rawText(this.rosterKey)],
      authorities: [this.ca.certificatePem],
      notAfterMs: Date.now() + dayMs,
      ...changes,
    };
    return signStatement('bundle', bundleSchema, bundle, this.root);
  }

  /** What the control plane answers a time request with. */
  signTime(nonce: string, timeMs: number): string {
    return signStatement('time', timeSchema, { nonce, timeMs }, this.grantKey);
  }

  /** Certificate, key and bundle as a dialler needs them. */
  dialIdentity(uri: string): {
    readonly tlsKeyPem: string;
    readonly certificatePem: string;
    readonly bundle: Bundle;
  } {
    const { keyPem, certificatePem } = this.ca.issue({
      uris: [uri],
      hosts: [],
      uses: ['clientAuth'],
    });
    return { tlsKeyPem: keyPem, certificatePem, bundle: this.bundle };
  }
}
