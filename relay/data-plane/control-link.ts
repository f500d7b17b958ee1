import {
  aheadProtocol,
  controlProtocol,
  fromRelay,
  leaseBatchSchema,
  toRelay,
  verifyStatement,
  wireVersions,
  ZtnaError,
  type Bundle,
  type FromRelay,
  type LeaseBatch,
  type RevocationEntry,
  type ToRelay,
  type TunnelId,
} from '../../protocol/index.ts';
import {
  ControlChannel,
  describeProxy,
  redialForever,
  type ControlClock,
  type Identity,
  type Logger,
  type RevocationFeed,
} from '../../protocol/host/index.ts';
import { limits } from './limits.ts';

export interface ControlLinkOptions {
  /** Read anew at every dial, as certificates and bundles are renewed. */
  readonly identity: () => Identity;
  /** The address of the control plane's relay. */
  readonly url: string;
  /** The control plane's unix socket on this host; without it the address is dialled. */
  readonly socketPath: string | undefined;
  readonly clock: ControlClock;
  readonly feed: RevocationFeed;
  readonly tunnels: () => readonly TunnelId[];
  /** Sent after every welcome: what a control plane that was away must hear again. */
  readonly standing: () => readonly FromRelay[];
  readonly onLeases: (batch: LeaseBatch) => void;
  readonly onEntry: (entry: RevocationEntry) => void;
  readonly onBundle: (bundle: Bundle) => void;
  /** A `relays` statement. An error it throws closes the channel. */
  readonly onRelays: (statement: string) => void;
  /** Runs at every log batch: from the first on, admission has what it needs. */
  readonly onLog: () => void;
  readonly logger: Logger;
  readonly software: string;
}

type Channel = ControlChannel<ToRelay, FromRelay>;

/**
 * The data plane's line to one control plane, redialled for ever. Losing it ends nothing here: tunnels live by their
 * leases alone.
 */
export class ControlLink {
  readonly #options: ControlLinkOptions;
  readonly #stopping = new AbortController();
  #channel: Channel | undefined;
  /** Ends of tunnels that nobody has heard of yet. */
  #unsent: FromRelay[] = [];

  constructor(options: ControlLinkOptions) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#channel !== undefined;
  }

  /** Dials and redials until `stop`. Resolves then. */
  async run(): Promise<void> {
    const { logger } = this.#options;
    await redialForever({
      dial: (signal) => this.#open(signal),
      run: async (channel) => {
        this.#begin(channel);
        const error = await channel.closed;
        if (this.#channel === channel) this.#channel = undefined;
        return error;
      },
      signal: this.#stopping.signal,
      capMs: limits.redialWithinMs,
      onWaiting: ({ code, message }, delayMs) => {
        const { url } = this.#options;
        logger.warn('control_link_lost', { url, code, message, redialInMs: Math.round(delayMs) });
      },
    });
  }

  stop(): void {
    this.#stopping.abort();
    this.#channel?.close();
  }

  #open(signal: AbortSignal): Promise<Channel> {
    const { identity, url, socketPath, clock, logger, tunnels, software } = this.#options;
    const current = identity();
    return ControlChannel.open<ToRelay, FromRelay>({
      dial: {
        url,
        alpn: aheadProtocol,
        olderAlpn: controlProtocol,
        serverRole: 'control-plane',
        identity: current,
        ...(socketPath === undefined ? {} : { socketPath }),
      },
      fromSchema: fromRelay,
      toSchema: toRelay,
      hello: {
        type: 'hello',
        versions: wireVersions,
        software,
        bundleVersion: current.bundle.version,
        tunnels: [...tunnels()],
      },
      clock,
      bundle: () => identity().bundle,
      onMessage: (message) => {
        this.#receive(message);
      },
      onBundle: this.#options.onBundle,
      logger,
      signal,
    });
  }

  #begin(channel: Channel): void {
    const { logger, identity, standing } = this.#options;
    this.#channel = channel;
    if (channel.welcome.relay !== identity().id) {
      logger.error('control_link_misnamed', { relay: channel.welcome.relay });
      channel.close();
      return;
    }
    const { socketPath, url } = this.#options;
    const proxy = socketPath === undefined ? describeProxy(url) : null;
    logger.info('control_link_open', { url, version: channel.welcome.version, proxy });
    const unsent = this.#unsent;
    this.#unsent = [];
    for (const message of [...standing(), ...unsent]) this.#sendOn(channel, message);
  }

  #receive(message: ToRelay): void {
    const { feed, identity, onEntry, onLeases, onLog } = this.#options;
    const { bundle } = identity();
    switch (message.type) {
      case 'leases':
        onLeases(verifyStatement('lease', leaseBatchSchema, message.statement, bundle.grantKeys));
        return;
      case 'log':
        for (const entry of feed.receive(message.statement, bundle)) onEntry(entry);
        onLog();
        return;
      case 'relays':
        this.#options.onRelays(message.statement);
        return;
      case 'welcome':
      case 'time':
      case 'bundle':
        throw new ZtnaError('ERR_MESSAGE_UNEXPECTED'); // the channel's own
    }
  }

  /** Tells the control plane; the end of a tunnel is kept until it can be told. */
  send(message: Exclude<FromRelay, { type: 'hello' | 'time' | 'admission_refused' }>): void {
    if (this.#channel) this.#sendOn(this.#channel, message);
    else if (message.type === 'tunnel_closed' && this.#unsent.length < limits.unsentEnds) {
      this.#unsent.push(message);
    }
  }

  #sendOn(channel: Channel, message: FromRelay): void {
    if (channel.welcome.version >= versionOf(message)) channel.send(message);
  }

  /** Tells what belongs in the audit log; dropped while the channel is lost. */
  report(message: Extract<FromRelay, { type: 'admission_refused' | 'receipt' }>): void {
    if (this.#channel) this.#sendOn(this.#channel, message);
  }
}

/** The first version of the wire that has a message. */
function versionOf({ type }: FromRelay): number {
  if (type === 'receipt' || type === 'receipt_key') return 3;
  return type === 'draining' || type === 'tunnel_joined' ? 2 : 1;
}
