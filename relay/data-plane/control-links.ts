import {
  TokenBucket,
  type FromRelay,
  type ListedRelay,
  type ZtnaError,
} from '../../protocol/index.ts';
import type { KnownRelays } from '../../protocol/host/index.ts';
import { ControlLink, type ControlLinkOptions } from './control-link.ts';
import { limits } from './limits.ts';

export interface ControlLinksOptions extends Omit<
  ControlLinkOptions,
  'url' | 'socketPath' | 'onRelays'
> {
  /** The unix socket of the control plane on this host, if there is one. */
  readonly controlSocket: string | undefined;
  readonly known: KnownRelays;
}

/**
 * The data plane's lines to every control plane: the one on its own host by its socket, the others by the addresses of
 * the relays that have one. What they say counts alike, so feed, clock and leases are shared; what is to be told is
 * told to each.
 */
export class ControlLinks {
  readonly #options: ControlLinksOptions;
  /** By the address of the control plane's relay. */
  readonly #links = new Map<string, ControlLink>();
  readonly #refusals = new TokenBucket(limits.auditBurst, limits.auditPerSecond);
  readonly #forget: () => void;
  #unreported = 0;
  #isStopping = false;

  constructor(options: ControlLinksOptions) {
    this.#options = options;
    this.#forget = options.known.onChange(() => {
      this.#update();
    });
  }

  /** Dials and redials until `stop`. */
  start(): void {
    this.#update();
  }

  stop(): void {
    this.#isStopping = true;
    this.#forget();
    for (const link of this.#links.values()) link.stop();
    this.#links.clear();
  }

  /** How many are open. */
  get openCount(): number {
    return [...this.#links.values()].filter((link) => link.isOpen).length;
  }

  #update(): void {
    if (this.#isStopping) return;
    const wanted = this.#wanted();
    for (const [url, link] of [...this.#links]) {
      if (wanted.has(url)) continue;
      link.stop();
      this.#links.delete(url);
    }
    for (const [url, socketPath] of wanted) {
      if (this.#links.has(url)) continue;
      const link = new ControlLink({
        ...this.#options,
        url,
        socketPath,
        onRelays: (statement) => {
          this.#options.known.take(statement);
        },
      });
      this.#links.set(url, link);
      void link.run();
    }
  }

  /** Where control planes are, each with the socket that stands for its address on this host. */
  #wanted(): Map<string, string | undefined> {
    const { controlSocket, identity, known } = this.#options;
    const { id, relayUrl, profile } = identity();
    const wanted = new Map<string, string | undefined>();
    // One that joined was enrolled at another relay than its own.
    if (controlSocket !== undefined) wanted.set(profile['url'] ?? relayUrl, controlSocket);
    const isOther = (relay: ListedRelay) => relay.isControl && relay.id !== id;
    for (const { url } of known.relays.filter(isOther)) {
      if (!wanted.has(url)) wanted.set(url, undefined);
    }
    if (wanted.size === 0) wanted.set(relayUrl, undefined); // where it was enrolled
    return wanted;
  }

  /** Tells every control plane; the end of a tunnel is kept for each until it can be told. */
  send(message: Parameters<ControlLink['send']>[0]): void {
    for (const link of this.#links.values()) link.send(message);
  }

  /** Tells one control plane; answers false while there is none. */
  report(message: Extract<FromRelay, { type: 'receipt' }>): boolean {
    const link = [...this.#links.values()].find(({ isOpen }) => isOpen);
    link?.report(message);
    return link !== undefined;
  }

  /** Reports a refusal for the audit log, to one control plane, unless there are too many to be told. */
  reportRefusal(error: ZtnaError, peer: string | null, address: string): void {
    const { logger } = this.#options;
    const reason = error.reason ?? error.code.slice('ERR_'.length).toLowerCase();
    logger.debug('admission_refused', { code: error.code, reason, peer, address });
    const link = [...this.#links.values()].find(({ isOpen }) => isOpen);
    if (!link || !this.#refusals.take(performance.now())) {
      this.#unreported++;
      return;
    }
    if (this.#unreported > 0) {
      logger.warn('refusals_unreported', { count: this.#unreported });
      this.#unreported = 0;
    }
    link.report({ type: 'admission_refused', code: error.code, reason, peer, address });
  }
}
