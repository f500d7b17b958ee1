import { toZtnaError, ZtnaError } from '../../protocol/index.ts';
import { redialForever, type Logger } from '../../protocol/host/index.ts';
import { asPassing, isLastWord } from './last-word.ts';

/** A request made while the channel is being redialled waits so long for it. */
const waitForChannelMs = 15_000;

/** What a link needs of a channel. */
export interface LinkedChannel {
  readonly closed: Promise<ZtnaError>;
  close(): void;
}

export interface ControlLinkOptions<C extends LinkedChannel> {
  readonly dial: (signal: AbortSignal) => Promise<C>;
  readonly logger: Logger;
}

/**
 * Keeps one control channel for as long as it is wanted. The first dial decides: its failure is the caller's.
 * Later losses are redialled for ever, except where a control plane says that this machine was revoked.
 *
 *   dialling ──▶ open ──lost──▶ redialling ──▶ open
 *   any ──refused for good, or stop()──▶ ended
 */
export class ControlLink<C extends LinkedChannel> {
  /** Why it ended; undefined after `stop`. Never rejects. */
  readonly ended: Promise<ZtnaError | undefined>;
  readonly #stopping = new AbortController();
  readonly #wake = new EventTarget();
  readonly #waiting = new Set<(channel: C | undefined) => void>();
  #channel: C | undefined;
  #hasOpened = false;
  #lastError = new ZtnaError('ERR_RELAY_UNREACHABLE', { hop: 'network' });

  /** Dials. Throws what kept the first channel from opening. */
  static async start<C extends LinkedChannel>(
    options: ControlLinkOptions<C>,
  ): Promise<ControlLink<C>> {
    const link = new ControlLink(options);
    await link.channel();
    return link;
  }

  private constructor({ dial, logger }: ControlLinkOptions<C>) {
    const { signal } = this.#stopping;
    const running = redialForever<C>({
      dial,
      run: async (channel) => {
        this.#channel = channel;
        this.#hasOpened = true;
        this.#release(channel);
        const error = await channel.closed;
        this.#channel = undefined;
        return error;
      },
      signal,
      wake: this.#wake,
      onWaiting: (error, delayMs) => {
        this.#lastError = asPassing(error);
        logger.info('control_channel_lost', { code: error.code, reason: error.reason, delayMs });
      },
      isFatal: (error) => !this.#hasOpened || isLastWord(error),
    });
    this.ended = running.then(
      () => undefined,
      (error: unknown) => toZtnaError(error),
    );
    void this.ended.then((error) => {
      if (error) this.#lastError = error;
      this.#stopping.abort();
      this.#release(undefined);
    });
  }

  /** The channel if one is open now. */
  get current(): C | undefined {
    return this.#channel;
  }

  /** The open channel, waited for if it is being redialled. Throws why there is none. */
  async channel(): Promise<C> {
    if (this.#channel) return this.#channel;
    if (this.#stopping.signal.aborted) throw this.#lastError;
    this.#wake.dispatchEvent(new Event('wake'));
    const { promise, resolve } = Promise.withResolvers<C | undefined>();
    this.#waiting.add(resolve);
    const timer = setTimeout(resolve, waitForChannelMs, undefined);
    const channel = await promise;
    clearTimeout(timer);
    this.#waiting.delete(resolve);
    if (!channel) throw this.#lastError;
    return channel;
  }

  /** Drops the channel so that another is dialled, as after a renewal of the certificate. */
  redial(): void {
    this.#channel?.close();
    this.#wake.dispatchEvent(new Event('wake'));
  }

  /** Closes the channel for good. Safe to call twice. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#channel?.close();
    await this.ended;
  }

  #release(channel: C | undefined): void {
    for (const resolve of [...this.#waiting]) resolve(channel);
  }
}
