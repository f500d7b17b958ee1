import {
  toZtnaError,
  type FromConnector,
  type ListedRelay,
  type ZtnaError,
} from '../protocol/index.ts';
import { redialForever, type KnownRelays, type Logger } from '../protocol/host/index.ts';
import { ControlLink, type ControlLinkOptions } from './control-link.ts';
import { maxControlLinks, maxUntoldEnds, redialWithinMs, wedgedAfterMs } from './limits.ts';

export interface ControlLinksOptions {
  readonly known: KnownRelays;
  /** Where this connector was enrolled: dialled while no list is known. */
  readonly enrolledAt: string;
  /** All that a link needs but where to dial. */
  readonly link: Omit<ControlLinkOptions, 'urls' | 'signal'>;
  readonly onOpen: (link: ControlLink) => void;
  readonly onLost: (error: ZtnaError) => void;
  readonly onWaiting: (error: ZtnaError, delayMs: number) => void;
  readonly isFatal: (error: ZtnaError) => boolean;
  readonly logger: Logger;
}

/** How the channel to one control plane stands. `wedged`: lost for too long. */
export interface LinkState {
  readonly url: string;
  readonly state: 'open' | 'dialling' | 'wedged';
  readonly error: ZtnaError | undefined;
}

/** The channel to one control plane, redialled for as long as the list names it. */
interface Kept {
  readonly stopping: AbortController;
  link: ControlLink | undefined;
  error: ZtnaError | undefined;
  lostSinceMs: number;
  /** What happened while it was lost. */
  untold: FromConnector[];
}

/**
 * A channel to every control plane there is. What they say counts alike; what happens here is told to each of them,
 * and kept for those that are away.
 */
export class ControlLinks {
  readonly #options: ControlLinksOptions;
  readonly #kept = new Map<string, Kept>();
  readonly #over = Promise.withResolvers<undefined>();
  #signal: AbortSignal | undefined;

  constructor(options: ControlLinksOptions) {
    this.#options = options;
    this.#over.promise.catch(() => undefined);
  }

  /** Dials and redials until the signal aborts. Throws only an error that `isFatal` names. */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    const forget = this.#options.known.onChange(() => {
      this.#update();
    });
    const end = () => {
      this.#over.resolve(undefined);
    };
    signal.addEventListener('abort', end, { once: true });
    if (signal.aborted) end();
    else this.#update();
    try {
      await this.#over.promise;
    } finally {
      forget();
      this.close();
    }
  }

  /** The channels that are open now. */
  get open(): ControlLink[] {
    return [...this.#kept.values()].flatMap(({ link }) => link ?? []);
  }

  get states(): LinkState[] {
    return [...this.#kept].map(([url, { link, error, lostSinceMs }]) => ({
      url,
      state: link
        ? 'open'
        : performance.now() - lostSinceMs >= wedgedAfterMs
          ? 'wedged'
          : 'dialling',
      error: link ? undefined : error,
    }));
  }

  /** Sends to every open channel; one that is lost does not hear of it. */
  send(message: FromConnector): void {
    for (const link of this.open) link.send(message);
  }

  /**
   * Tells every control plane, those that are away as soon as they are back; paths come and go meanwhile, and how they
   * stand then is told when the channel opens.
   */
  tell(message: FromConnector): void {
    for (const kept of this.#kept.values()) {
      if (kept.link) kept.link.send(message);
      else if (message.type === 'tunnel_detached' || message.type === 'tunnel_resumed') continue;
      else if (kept.untold.length < maxUntoldEnds) kept.untold.push(message);
    }
  }

  close(): void {
    for (const [url, kept] of [...this.#kept]) this.#drop(url, kept);
  }

  #update(): void {
    const signal = this.#signal;
    if (!signal || signal.aborted) return;
    const wanted = this.#wanted();
    for (const [url, kept] of [...this.#kept]) {
      if (!wanted.includes(url)) this.#drop(url, kept);
    }
    for (const url of wanted) {
      if (!this.#kept.has(url)) this.#keep(url, signal);
    }
  }

  /** Addresses of the relays with a control plane. */
  #wanted(): string[] {
    const { known, enrolledAt } = this.#options;
    const listed = known.relays.filter(({ isControl }) => isControl).map(({ url }) => url);
    return listed.length > 0 ? listed.slice(0, maxControlLinks) : [enrolledAt];
  }

  /**
   * Where one control plane can be dialled. Every other relay hands channels on too, but to whichever control plane
   * answers it: where there are several, two channels might so end at the same one.
   */
  #waysTo(url: string): string[] {
    const { relays } = this.#options.known;
    const isOnly = relays.filter(({ isControl }) => isControl).length === 1;
    const isOther = (relay: ListedRelay) => !relay.isControl && !relay.isDraining;
    return [url, ...(isOnly ? relays.filter(isOther).map((relay) => relay.url) : [])];
  }

  #keep(url: string, signal: AbortSignal): void {
    const { link: options, onOpen, onLost, onWaiting, isFatal } = this.#options;
    const kept: Kept = {
      stopping: new AbortController(),
      link: undefined,
      error: undefined,
      lostSinceMs: performance.now(),
      untold: [],
    };
    this.#kept.set(url, kept);
    redialForever({
      dial: (dialSignal) =>
        ControlLink.open({ ...options, urls: this.#waysTo(url), signal: dialSignal }),
      run: async (link) => {
        kept.link = link;
        kept.error = undefined;
        for (const message of kept.untold.splice(0)) link.send(message);
        onOpen(link);
        const error = await link.lost;
        kept.link = undefined;
        kept.error = error;
        kept.lostSinceMs = performance.now();
        onLost(error);
        return error;
      },
      signal: AbortSignal.any([signal, kept.stopping.signal]),
      capMs: redialWithinMs,
      onWaiting: (error, delayMs) => {
        kept.error = error;
        onWaiting(error, delayMs);
      },
      isFatal,
    }).catch((error: unknown) => {
      kept.error = toZtnaError(error);
      this.#over.reject(kept.error);
    });
  }

  #drop(url: string, kept: Kept): void {
    this.#kept.delete(url);
    kept.stopping.abort();
    kept.link?.close();
  }
}
