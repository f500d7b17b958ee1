import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  X509Certificate,
} from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { toZtnaError } from '../../../protocol/index.ts';
import { readSecretFile, writeSecretFile } from '../../../protocol/host/index.ts';
import type { Services } from '../services.ts';
import { certificateLifeMs, hostOf } from './certificate.ts';

const renewCheckMs = 3_600_000;

type CertificateServices = Pick<Services, 'authority' | 'clock' | 'settings' | 'logger'>;

/** The control plane's own TLS key and certificate, in `tls.key` and `tls.pem`; renewed at half its life. */
export class ServerCertificate {
  readonly #services: CertificateServices;
  readonly #directory: string;
  #keyPem = '';
  #certificatePem = '';
  #onRenewed: (keyPem: string, certificatePem: string) => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;

  private constructor(services: CertificateServices, directory: string) {
    this.#services = services;
    this.#directory = directory;
  }

  /** Reads what is there, and makes a new one when it is missing, half over, or for another host. */
  static async open(services: CertificateServices, directory: string): Promise<ServerCertificate> {
    const own = new ServerCertificate(services, directory);
    const keyPath = join(directory, 'tls.key');
    const path = join(directory, 'tls.pem');
    if (existsSync(keyPath) && existsSync(path)) {
      own.#keyPem = await readSecretFile(keyPath);
      own.#certificatePem = readFileSync(path, 'utf8');
    }
    if (!own.#isGood()) await own.#renew();
    own.#timer = setInterval(() => {
      if (own.#isGood()) return;
      own.#renew().then(
        () => {
          own.#onRenewed(own.#keyPem, own.#certificatePem);
        },
        (error: unknown) => {
          services.logger.error('certificate_not_renewed', { error: toZtnaError(error).message });
        },
      );
    }, renewCheckMs);
    own.#timer.unref();
    return own;
  }

  get keyPem(): string {
    return this.#keyPem;
  }

  get certificatePem(): string {
    return this.#certificatePem;
  }

  onRenewed(listener: (keyPem: string, certificatePem: string) => void): void {
    this.#onRenewed = listener;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #isGood(): boolean {
    const { authority, settings } = this.#services;
    try {
      const certificate = new X509Certificate(this.#certificatePem);
      const host = hostOf(settings.url);
      const leftMs = Date.parse(certificate.validTo) - Date.now();
      return (
        certificate.verify(new X509Certificate(authority.certificatePem).publicKey) &&
        certificate.checkPrivateKey(createPrivateKey(this.#keyPem)) &&
        (certificate.checkHost(host) ?? certificate.checkIP(host)) !== undefined &&
        leftMs > certificateLifeMs['control-plane'] / 2
      );
    } catch {
      return false;
    }
  }

  async #renew(): Promise<void> {
    const made = await issueServerCertificate(this.#services);
    await writeSecretFile(join(this.#directory, 'tls.key'), made.keyPem);
    await writeSecretFile(join(this.#directory, 'tls.pem'), made.certificatePem);
    this.#keyPem = made.keyPem;
    this.#certificatePem = made.certificatePem;
  }
}

async function issueServerCertificate({
  authority,
  clock,
  settings,
}: Pick<Services, 'authority' | 'clock' | 'settings'>): Promise<{
  keyPem: string;
  certificatePem: string;
}> {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const certificate = await authority.issueForKey(createPublicKey(privateKey), {
    role: 'control-plane',
    id: 'cp',
    hosts: [hostOf(settings.url)],
    lifeMs: certificateLifeMs['control-plane'],
    nowMs: clock.nowMs(),
  });
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return { keyPem, certificatePem: certificate.pem };
}
