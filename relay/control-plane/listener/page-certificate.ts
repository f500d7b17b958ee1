import { createPrivateKey, X509Certificate } from 'node:crypto';
import { unwatchFile, watchFile } from 'node:fs';
import { open } from 'node:fs/promises';
import { isIP } from 'node:net';
import { createSecureContext } from 'node:tls';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import type { Logger } from '../../../protocol/host/index.ts';

/** PEM files, by absolute path: a certificate with its chain, and its key. */
export interface PageCertificateFiles {
  readonly certFile: string;
  readonly keyFile: string;
}

export interface CertificatePair {
  readonly certificatePem: string;
  readonly keyPem: string;
}

const watchEveryMs = 5_000;
/** A chain of certificates takes a tenth of this. */
const maxFileBytes = 65_536;

/**
 * The certificate that browsers and other systems are shown, from files that somebody else renews. They are read again when
 * they change; what is no pair is logged, and the pair before stays.
 */
export class PageCertificate {
  readonly #files: PageCertificateFiles;
  readonly #host: string;
  readonly #logger: Logger;
  #pair: CertificatePair;
  #onReplaced: (pair: CertificatePair) => void = () => undefined;
  #reloading: Promise<void> = Promise.resolve();
  readonly #onFileChange = () => {
    void this.reload();
  };

  /**
   * Reads the files. `host` is the name that the certificate should be for. Throws ERR_CONFIG_INVALID for what is no
   * certificate with its key, ERR_CONFIG_NOT_FOUND and ERR_CONFIG_PERMISSIONS for what cannot be read, or by everybody.
   */
  static async open(
    files: PageCertificateFiles,
    host: string,
    logger: Logger,
  ): Promise<PageCertificate> {
    return new PageCertificate(files, host, logger, await readPair(files));
  }

  private constructor(
    files: PageCertificateFiles,
    host: string,
    logger: Logger,
    pair: CertificatePair,
  ) {
    this.#files = files;
    this.#host = host;
    this.#logger = logger;
    this.#pair = pair;
    this.#warn();
    for (const path of [files.certFile, files.keyFile]) {
      // Polling also sees a file that is swapped by a rename or a link, as renewals do.
      watchFile(path, { interval: watchEveryMs, persistent: false }, this.#onFileChange);
    }
  }

  get pair(): CertificatePair {
    return this.#pair;
  }

  /** Calls `listener` with every other pair from here on. */
  onReplaced(listener: (pair: CertificatePair) => void): void {
    this.#onReplaced = listener;
  }

  /** Reads the files again. */
  reload(): Promise<void> {
    this.#reloading = this.#reloading.then(() => this.#reloadNow());
    return this.#reloading;
  }

  stop(): void {
    for (const path of [this.#files.certFile, this.#files.keyFile]) {
      unwatchFile(path, this.#onFileChange);
    }
  }

  async #reloadNow(): Promise<void> {
    try {
      const pair = await readPair(this.#files);
      const { certificatePem, keyPem } = this.#pair;
      if (pair.certificatePem === certificatePem && pair.keyPem === keyPem) return;
      this.#pair = pair;
      this.#onReplaced(pair);
      this.#logger.info('page_certificate_replaced', { file: this.#files.certFile });
      this.#warn();
    } catch (error) {
      const { code, message } = toZtnaError(error);
      this.#logger.warn('page_certificate_refused', { code, message }); // also between its two files
    }
  }

  /** Whoever dials refuses such a certificate; the relay itself can do without. */
  #warn(): void {
    const certificate = new X509Certificate(this.#pair.certificatePem);
    const isNamed =
      isIP(this.#host) === 0
        ? certificate.checkHost(this.#host) !== undefined
        : certificate.checkIP(this.#host) !== undefined;
    const file = this.#files.certFile;
    if (!isNamed) this.#logger.warn('page_certificate_other_name', { file, host: this.#host });
    const { validTo } = certificate;
    if (Date.parse(validTo) < Date.now()) {
      this.#logger.warn('page_certificate_expired', { file, validTo });
    }
  }
}

async function readPair({ certFile, keyFile }: PageCertificateFiles): Promise<CertificatePair> {
  const certificatePem = await readPem(certFile, 'tls.cert', false);
  const keyPem = await readPem(keyFile, 'tls.key', true);
  let isPair: boolean;
  try {
    isPair = new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(keyPem));
    createSecureContext({ cert: certificatePem, key: keyPem, minVersion: 'TLSv1.3' });
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `tls: ${certFile} and ${keyFile} are no certificate and key that TLS takes`,
      hint: 'give it PEM files: the certificate before its chain, and a key without a passphrase',
      cause,
    });
  }
  if (isPair) return { certificatePem, keyPem };
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: `tls: ${keyFile} is not the key of the first certificate in ${certFile}`,
  });
}

async function readPem(path: string, key: string, isSecret: boolean): Promise<string> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new ZtnaError(code === 'ENOENT' ? 'ERR_CONFIG_NOT_FOUND' : 'ERR_CONFIG_PERMISSIONS', {
      message: `${key}: ${path} cannot be read (${code ?? 'unknown'})`,
      cause,
    });
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile() || stats.size > maxFileBytes) {
      throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${key}: ${path} is no PEM file` });
    }
    if (isSecret && process.platform !== 'win32' && (stats.mode & 0o007) !== 0) {
      throw new ZtnaError('ERR_CONFIG_PERMISSIONS', {
        message: `${key}: ${path} is open to everybody`,
        hint: `chmod 600 ${path}`,
      });
    }
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}
