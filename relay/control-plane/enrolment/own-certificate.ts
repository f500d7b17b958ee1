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
import { relayHosts } from '../relays/relay.ts';
import { certificateLifeMs, hostOf } from './certificate.ts';

const renewCheckMs = 3_600_000;

type CertificateServices = Pick<Services, 'authority' | 'clock' | 'settings' | 'logger' | 'store'>;

/**
 * The control plane's own TLS key and certificate, in `tls.key` and `tls.pem`; renewed at half its life, and when there
 * are other relays: each of them hands control channels on, so the certificate names every host that may be dialled.
 */
export class ServerCertificate {
  readonly #services: CertificateServices;
  readonly #directory: string;
  #keyPem = '';
  #certificatePem = '';
  #onRenewed: (keyPem: string, certificatePem: string) => void = () => undefined;
  #timer: NodeJS.Timeout | undefined;
  #checking: Promise<void> = Promise.resolve();

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
    if (!own.#isGood(await own.#hosts())) await own.#renew(await own.#hosts());
    own.#timer = setInterval(() => {
      own.check();
    }, renewCheckMs);
    own.#timer.unref();
    return own;
  }

  /** Makes a new one if this one does no more. Never throws. */
  check(): void {
    this.#checking = this.#checking.then(async () => {
      try {
        const hosts = await this.#hosts();
        if (this.#isGood(hosts)) return;
        await this.#renew(hosts);
        this.#onRenewed(this.#keyPem, this.#certificatePem);
      } catch (error) {
        const { message } = toZtnaError(error);
        this.#services.logger.error('certificate_not_renewed', { error: message });
      }
    });
  }

  async #hosts(): Promise<string[]> {
    const { settings, store } = this.#services;
    return [...new Set([hostOf(settings.url), ...(await relayHosts(store.db))])];
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

  /** Waits for a renewal that runs. */
  stop(): Promise<void> {
    clearInterval(this.#timer);
    return this.#checking;
  }

  #isGood(hosts: readonly string[]): boolean {
    const { authority } = this.#services;
    try {
      const certificate = new X509Certificate(this.#certificatePem);
      const leftMs = Date.parse(certificate.validTo) - Date.now();
      return (
        certificate.verify(new X509Certificate(authority.certificatePem).publicKey) &&
        certificate.checkPrivateKey(createPrivateKey(this.#keyPem)) &&
        hosts.every(
          (host) => (certificate.checkHost(host) ?? certificate.checkIP(host)) !== undefined,
        ) &&
        leftMs > certificateLifeMs['control-plane'] / 2
      );
    } catch {
      return false;
    }
  }

  async #renew(hosts: readonly string[]): Promise<void> {
    const made = await issueServerCertificate(this.#services, hosts);
    await writeSecretFile(join(this.#directory, 'tls.key'), made.keyPem);
    await writeSecretFile(join(this.#directory, 'tls.pem'), made.certificatePem);
    this.#keyPem = made.keyPem;
    this.#certificatePem = made.certificatePem;
  }
}

async function issueServerCertificate(
  { authority, clock }: Pick<Services, 'authority' | 'clock'>,
  hosts: readonly string[],
): Promise<{ keyPem: string; certificatePem: string }> {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const certificate = await authority.issueForKey(createPublicKey(privateKey), {
    role: 'control-plane',
    id: 'cp',
    hosts: [...hosts],
    lifeMs: certificateLifeMs['control-plane'],
    nowMs: clock.nowMs(),
  });
  const keyPem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  return { keyPem, certificatePem: certificate.pem };
}
