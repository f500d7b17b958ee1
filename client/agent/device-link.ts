import type { TLSSocket } from 'node:tls';
import {
  controlProtocol,
  toZtnaError,
  type ToDevice,
  type TunnelId,
  type ZtnaError,
} from '../../protocol/index.ts';
import type { ControlClock, DialOptions, KnownRelays, Logger } from '../../protocol/host/index.ts';
import { dialControl } from './control-dial.ts';
import { ControlLink } from './control-link.ts';
import { openDeviceChannel, type DeviceChannel } from './device-channel.ts';
import { watchDraining } from './drain-watch.ts';
import type { IdentityKeeper } from './identity-keeper.ts';
import type { RelayBook } from './relay-book.ts';

/** How long a relay that took the connection may have an agent that was connected before wait for its turn. */
const comebackPatienceMs = 60_000;

export interface DeviceLinkOptions {
  readonly keeper: IdentityKeeper;
  readonly known: KnownRelays;
  readonly book: RelayBook;
  readonly clock: ControlClock;
  readonly logger: Logger;
  /** The app whose permission is asked for right behind the greeting, until the answer is taken. */
  readonly app: string | undefined;
  /** The tunnels that the greeting names. */
  readonly tunnels: () => readonly TunnelId[];
  readonly onMessage: (message: ToDevice) => void;
  /** Gives up connecting when it aborts. */
  readonly signal: AbortSignal;
}

/**
 * Keeps this device connected to one control plane of its deployment: the best that can be reached, under a certificate
 * that is accepted. It goes to another when that one is lost, drains or cannot be believed, and dials anew with each new
 * certificate.
 */
export class DeviceLink {
  readonly #options: DeviceLinkOptions;
  /** What was asked ahead, until it is used. */
  #ahead: { readonly app: string; readonly answer?: Promise<ToDevice> } | undefined;
  /** Where the control channel is. */
  #url: string | undefined;
  #isConnected = false;
  #stopWatching: () => void = () => undefined;
  #link!: ControlLink<DeviceChannel>;

  constructor(options: DeviceLinkOptions) {
    this.#options = options;
    if (options.app !== undefined) this.#ahead = { app: options.app };
  }

  /**
   * Connects; to be called once, and before anything else. `onDialling` hears of the relay that is tried first. Throws
   * ERR_RELAY_UNREACHABLE, or what the relay refused this machine with.
   */
  async start(onDialling: (url: string) => void): Promise<void> {
    const { keeper, known, book } = this.#options;
    // A machine that was off for long renews first; one whose own clock is wrong loses a round trip by it.
    if (keeper.isRenewalDue) await this.#tryRenewal();
    const { relayUrl } = keeper.identity;
    const [nearest = relayUrl] = book.controlUrls(relayUrl);
    onDialling(nearest);
    try {
      await this.#startLink();
    } catch (error) {
      // The relay's clock decides when a certificate has ended, and ours may differ.
      if (toZtnaError(error).reason !== 'certificate_refused') throw error;
      await keeper.renew();
      await this.#startLink();
    }
    this.#isConnected = true;
    this.#stopWatching = watchDraining(
      known,
      () => this.#url,
      () => {
        this.#link.redial();
      },
    );
    keeper.onRenewed = () => {
      this.#link.redial();
    };
  }

  /** The channel if one is open now. */
  get current(): DeviceChannel | undefined {
    return this.#link.current;
  }

  /** Why there will be no channel any more, such as a revoked device; undefined after `stop`. Never rejects. */
  get ended(): Promise<ZtnaError | undefined> {
    return this.#link.ended;
  }

  /** The open channel, waited for if it is being redialled. Throws why there is none. */
  channel(): Promise<DeviceChannel> {
    return this.#link.channel();
  }

  /** The answer to what was asked right behind the greeting, once, if that was for this app. */
  takeAhead(app: string): Promise<ToDevice> | undefined {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    return ahead?.app === app ? ahead.answer : undefined;
  }

  /** Leaves the present control plane for another: its keys do not bear out what it said. */
  distrust(): void {
    if (this.#url === undefined) return;
    this.#options.book.noteFailed(this.#url);
    this.#link.redial();
  }

  /** Closes the channel for good. Safe to call twice. */
  async stop(): Promise<void> {
    this.#stopWatching();
    await this.#link.stop();
  }

  async #tryRenewal(): Promise<void> {
    const { keeper, logger } = this.#options;
    try {
      await keeper.renew();
    } catch (error) {
      logger.info('certificate_renewal_failed', { code: toZtnaError(error).code });
    }
  }

  async #startLink(): Promise<void> {
    this.#link = await ControlLink.start<DeviceChannel>({
      logger: this.#options.logger,
      dial: (signal) => this.#dial(signal),
    });
  }

  /** As `#dialOnce`, and renews a certificate that is refused meanwhile: who issued it may be a control plane no more. */
  async #dial(signal: AbortSignal): Promise<DeviceChannel> {
    try {
      return await this.#dialOnce(signal);
    } catch (error) {
      const isRefused = toZtnaError(error).reason === 'certificate_refused';
      if (isRefused && this.#isConnected) await this.#options.keeper.renewRefused();
      throw error;
    }
  }

  async #dialOnce(signal: AbortSignal): Promise<DeviceChannel> {
    const { keeper, known, book, logger } = this.#options;
    const { url, channel } = await dialControl<DeviceChannel>({
      urls: book.controlUrls(keeper.identity.relayUrl),
      book,
      dial: (to) => this.#dialOptions(to),
      open: async (to, socket) => this.#openChannel(to, socket, signal),
      logger,
      signal,
    });
    known.noteLast(url);
    this.#url = url;
    void channel.closed.then(({ reason }) => {
      if (reason !== 'closed_here') book.noteFailed(url);
    });
    return channel;
  }

  #dialOptions(url: string): DialOptions {
    const dial = { url, alpn: controlProtocol, serverRole: 'control-plane' } as const;
    // Whoever has tunnels waits for its turn; a person who asks for the first is told that it takes too long.
    const patience = this.#isConnected ? { patienceMs: comebackPatienceMs } : {};
    return { ...dial, identity: this.#options.keeper.identity, ...patience };
  }

  async #openChannel(url: string, socket: TLSSocket, signal: AbortSignal): Promise<DeviceChannel> {
    const { keeper, clock, logger, tunnels, onMessage } = this.#options;
    const app = this.#ahead?.app;
    const channel = await openDeviceChannel({
      dial: { ...this.#dialOptions(url), socket, signal },
      app,
      tunnels: tunnels(),
      keeper,
      clock,
      onMessage,
      logger,
      signal: AbortSignal.any([signal, this.#options.signal]),
    });
    const [answer] = channel.answers;
    this.#ahead = app === undefined || !answer ? undefined : { app, answer };
    return channel;
  }
}
