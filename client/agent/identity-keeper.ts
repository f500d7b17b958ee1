import { X509Certificate } from 'node:crypto';
import { toZtnaError, type Bundle } from '../../protocol/index.ts';
import {
  certificateLife,
  fullJitterDelayMs,
  isIssuedByListed,
  loadIdentity,
  renewCertificate,
  saveIdentity,
  type Identity,
  type Logger,
} from '../../protocol/host/index.ts';
import type { Profile } from './profile.ts';

/** After a renewal that failed, the next try comes so much later. */
const retryAfterMs = 60_000;

/** When a control plane was removed, those whose certificates it issued come within this time, not all at once. */
const unlistedWithinMs = 1_000;

/** No timer of Node runs longer. */
const longestTimerMs = 2 ** 31 - 1;

/**
 * Holds this machine's identity, on disk and in memory, and replaces its certificate at half its life: the new one
 * is on disk before the old one is given up.
 */
export class IdentityKeeper {
  /** Called after each renewal: connections under the old certificate should be made anew. */
  onRenewed: () => void = () => undefined;
  readonly #profile: Profile;
  readonly #logger: Logger;
  readonly #urls: () => readonly string[];
  #identity: Identity;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;
  #refusedAgainFromMs = -Infinity;

  /** `urls` are further relays to renew the certificate by. */
  constructor(
    profile: Profile,
    identity: Identity,
    logger: Logger,
    urls: () => readonly string[] = () => [],
  ) {
    this.#urls = urls;
    this.#profile = profile;
    this.#identity = identity;
    this.#logger = logger;
  }

  get identity(): Identity {
    return this.#identity;
  }

  /** True when the certificate should have been replaced already, by this machine's clock. */
  get isRenewalDue(): boolean {
    return Date.now() >= this.#life.renewAtMs || !isIssuedByListed(this.#identity);
  }

  /** Renews the certificate now. Throws what the relay refused it with. */
  async renew(): Promise<void> {
    const renewed = await renewCertificate(this.#identity, this.#urls());
    await this.#replace(({ profile }) => ({ ...renewed, profile }));
    this.#logger.info('certificate_renewed', { untilMs: this.#life.notAfterMs });
    this.onRenewed();
  }

  /** Renews a certificate that a relay refuses: not more often than once a minute, whoever says so. Never throws. */
  async renewRefused(): Promise<void> {
    if (performance.now() < this.#refusedAgainFromMs) return;
    this.#refusedAgainFromMs = performance.now() + retryAfterMs;
    await this.renew().catch((error: unknown) => {
      this.#logger.warn('certificate_renewal_failed', { code: toZtnaError(error).code });
    });
  }

  /** Keeps a newer bundle. A certificate by an issuer that it names no more is renewed soon. */
  async keepBundle(bundle: Bundle): Promise<void> {
    this.#identity = { ...this.#identity, bundle };
    await this.#replace((stored) =>
      stored.bundle.version >= bundle.version ? stored : { ...stored, bundle },
    );
    if (this.#timer && !isIssuedByListed(this.#identity)) {
      this.#schedule(fullJitterDelayMs(0, { baseMs: unlistedWithinMs }));
    }
  }

  /** Renews at half the certificate's life from here on. */
  start(): void {
    if (this.#isStopped) return;
    const waitMs = this.isRenewalDue ? 0 : this.#life.renewAtMs - Date.now();
    this.#schedule(Math.min(waitMs, longestTimerMs));
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  #schedule(delayMs: number): void {
    if (this.#isStopped) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#onTimer(), delayMs);
    this.#timer.unref(); // renewing is no reason to stay
  }

  async #onTimer(): Promise<void> {
    if (!this.isRenewalDue) {
      this.start();
      return;
    }
    try {
      await this.renew();
      this.start();
    } catch (error) {
      this.#logger.warn('certificate_renewal_failed', { code: toZtnaError(error).code });
      this.#schedule(retryAfterMs);
    }
  }

  get #life(): ReturnType<typeof certificateLife> {
    return certificateLife(new X509Certificate(this.#identity.certificatePem));
  }

  /** Changes what is on disk at this moment: another command of the same profile may have written meanwhile. */
  async #replace(change: (stored: Identity) => Identity): Promise<void> {
    const stored = await loadIdentity(this.#profile.dir);
    // Enrolled anew under another identity: that one is not ours to touch.
    if (stored && stored.id !== this.#identity.id) return;
    this.#identity = change(stored ?? this.#identity);
    await saveIdentity(this.#profile.dir, this.#identity);
  }
}
