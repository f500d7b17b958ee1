import { X509Certificate } from 'node:crypto';
import { toZtnaError, type Bundle, type ZtnaError } from '../protocol/index.ts';
import {
  certificateLife,
  fullJitterDelayMs,
  isIssuedByListed,
  renewCertificate,
  saveIdentity,
  type Identity,
  type Logger,
} from '../protocol/host/index.ts';

export interface IdentityKeeperOptions {
  readonly dir: string;
  readonly identity: Identity;
  readonly logger: Logger;
  /** Further relays to renew the certificate by. */
  readonly urls?: () => readonly string[];
  readonly renew?: (identity: Identity) => Promise<Identity>;
  readonly save?: (dir: string, identity: Identity) => Promise<void>;
  /** The relay will never renew this identity again. */
  readonly onRevoked: (error: ZtnaError) => void;
}

/** Looked at this often at least, so that a machine that slept renews soon after it wakes. */
const lookEveryMs = 60_000;

/** When a control plane was removed, those whose certificates it issued come within this time, not all at once. */
const unlistedWithinMs = 1_000;

/**
 * Holds the identity and keeps it fresh: the certificate is renewed at half its life, and every change is on disk
 * before it is used.
 */
export class IdentityKeeper {
  readonly #options: IdentityKeeperOptions;
  #identity: Identity;
  #saving: Promise<void> = Promise.resolve();
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #hasStopped = false;
  #refusedAgainFromMs = -Infinity;

  constructor(options: IdentityKeeperOptions) {
    this.#options = options;
    this.#identity = options.identity;
  }

  get identity(): Identity {
    return this.#identity;
  }

  get certificateEndsAtMs(): number {
    return this.#life.notAfterMs;
  }

  /**
   * Renews when half of the certificate's life is over, or when its issuer counts no more, and looks again later; never
   * throws.
   */
  async start(): Promise<void> {
    if (this.#isDue) await this.#renew();
    this.#schedule();
  }

  /** Renews a certificate that a relay refuses: not more often than once a minute, whoever says so. Never throws. */
  async renewRefused(): Promise<void> {
    if (performance.now() < this.#refusedAgainFromMs) return;
    this.#refusedAgainFromMs = performance.now() + lookEveryMs;
    await this.#renew();
  }

  /** Takes a newer bundle, verified against the pinned root; never throws. */
  async takeBundle(bundle: Bundle): Promise<void> {
    try {
      await this.#change((identity) => {
        return bundle.version > identity.bundle.version ? { ...identity, bundle } : identity;
      });
      if (this.#timer && !isIssuedByListed(this.#identity)) this.#schedule();
    } catch (error) {
      // The next welcome brings it again.
      this.#options.logger.error('bundle_not_saved', { message: toZtnaError(error).message });
    }
  }

  stop(): void {
    this.#hasStopped = true;
    clearTimeout(this.#timer);
  }

  get #life() {
    return certificateLife(new X509Certificate(this.#identity.certificatePem));
  }

  get #isDue(): boolean {
    return Date.now() >= this.#life.renewAtMs || !isIssuedByListed(this.#identity);
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#hasStopped) return;
    const untilRenewalMs = this.#isDue
      ? fullJitterDelayMs(0, { baseMs: unlistedWithinMs })
      : this.#life.renewAtMs - Date.now();
    const retryMs = this.#failures > 0 ? fullJitterDelayMs(this.#failures) : 0;
    const delayMs = Math.min(lookEveryMs, Math.max(untilRenewalMs, retryMs, 100));
    this.#timer = setTimeout(() => {
      void this.start();
    }, delayMs);
  }

  async #renew(): Promise<void> {
    const { urls, logger, onRevoked } = this.#options;
    const { renew = (identity: Identity) => renewCertificate(identity, urls?.()) } = this.#options;
    try {
      const renewed = await renew(this.#identity);
      const { tlsKeyPem, certificatePem } = renewed;
      await this.#change((identity) => ({
        ...identity,
        tlsKeyPem,
        certificatePem,
        bundle: renewed.bundle.version > identity.bundle.version ? renewed.bundle : identity.bundle,
      }));
      this.#failures = 0;
      logger.info('certificate_renewed', {
        endsAt: new Date(this.certificateEndsAtMs).toISOString(),
      });
    } catch (thrown) {
      this.#failures++;
      const error = toZtnaError(thrown);
      logger.warn('certificate_renewal_failed', { code: error.code, message: error.message });
      if (error.code === 'ERR_IDENTITY_REVOKED') onRevoked(error);
    }
  }

  /** One change after the other, each on what the one before left. */
  #change(change: (identity: Identity) => Identity): Promise<void> {
    const { dir, save = saveIdentity } = this.#options;
    const changing = this.#saving.then(async () => {
      const next = change(this.#identity);
      if (next === this.#identity) return;
      await save(dir, next);
      this.#identity = next;
    });
    this.#saving = changing.catch(() => undefined);
    return changing;
  }
}
