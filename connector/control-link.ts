import {
  aheadProtocol,
  controlProtocol,
  fromConnector,
  toConnector,
  wireVersions,
  ZtnaError,
  type AppId,
  type FromConnector,
  type InstanceId,
  type ToConnector,
  type TunnelId,
} from '../protocol/index.ts';
import {
  ControlChannel,
  dialFirst,
  dialForWebSocket,
  type ControlClock,
  type Logger,
  type WelcomeOf,
} from '../protocol/host/index.ts';
import type { IdentityKeeper } from './identity-keeper.ts';

export interface ControlLinkOptions {
  /** Where to dial, in order of preference. */
  readonly urls: readonly string[];
  readonly keeper: IdentityKeeper;
  readonly instance: InstanceId;
  readonly software: string;
  readonly clock: ControlClock;
  readonly appNames: () => readonly string[];
  readonly openTunnels: () => readonly TunnelId[];
  readonly logger: Logger;
  readonly signal: AbortSignal;
  readonly onAppIds: (appIds: readonly (readonly [string, AppId])[]) => void;
  /** A `lease` statement. An error it throws closes the channel. */
  readonly onLeases: (statement: string) => void;
  /** A `log` statement. An error it throws closes the channel. */
  readonly onLog: (statement: string) => void;
  /** A `relays` statement. An error it throws closes the channel. */
  readonly onRelays: (statement: string) => void;
}

/** One control channel. */
export class ControlLink {
  readonly #channel: ControlChannel<ToConnector, FromConnector>;
  /** Where it was dialled. */
  readonly url: string;
  /** Resolves, with why, when the channel is lost. */
  readonly lost: Promise<ZtnaError>;

  /** Dials and greets. Throws as `ControlChannel.open`. */
  static async open(options: ControlLinkOptions): Promise<ControlLink> {
    const { keeper, instance, software, clock, logger, signal } = options;
    const { identity } = keeper;
    const dialOf = (url: string) =>
      ({
        url,
        alpn: aheadProtocol,
        olderAlpn: controlProtocol,
        serverRole: 'control-plane',
        identity,
      }) as const;
    const { candidate: url, connection: socket } = await dialFirst({
      candidates: options.urls,
      dial: (each, attempt) => dialForWebSocket({ ...dialOf(each), signal: attempt }),
      discard: (late) => late.destroy(),
      signal,
    });
    const channel = await ControlChannel.open<ToConnector, FromConnector>({
      dial: { ...dialOf(url), socket },
      fromSchema: fromConnector,
      toSchema: toConnector,
      hello: {
        type: 'hello',
        versions: wireVersions,
        software,
        bundleVersion: identity.bundle.version,
        instance,
        apps: [...options.appNames()],
        tunnels: [...options.openTunnels()],
      },
      clock,
      bundle: () => keeper.identity.bundle,
      onBundle: (bundle) => {
        void keeper.takeBundle(bundle);
      },
      onMessage: (message) => {
        handleMessage(message, options);
      },
      logger,
      signal,
    });
    if (channel.welcome.connector !== identity.id) {
      channel.close();
      throw new ZtnaError('ERR_MESSAGE_UNEXPECTED', {
        message: 'the relay greeted another connector',
      });
    }
    return new ControlLink(channel, url, options);
  }

  private constructor(
    channel: ControlChannel<ToConnector, FromConnector>,
    url: string,
    options: ControlLinkOptions,
  ) {
    this.#channel = channel;
    this.url = url;
    this.lost = channel.closed;
    options.onAppIds(channel.welcome.appIds);
  }

  get name(): string {
    return this.#channel.welcome.name;
  }

  /** Relays, as the welcome names them, and how many sockets to keep idle at each. */
  get assigned(): Pick<WelcomeOf<ToConnector>, 'relays' | 'slots'> {
    return this.#channel.welcome;
  }

  /** Of the wire. */
  get version(): number {
    return this.#channel.welcome.version;
  }

  /** Sends a message, or drops it where the control plane is of a version that does not know it. */
  send(message: FromConnector): void {
    if (this.#channel.welcome.version >= versionOf(message.type)) this.#channel.send(message);
  }

  close(): void {
    this.#channel.close();
  }
}

/** The first version of the wire that has a message. */
function versionOf(type: FromConnector['type']): number {
  switch (type) {
    case 'byte_counts':
    case 'receipt':
      return 3;
    case 'tunnel_detached':
    case 'tunnel_resumed':
    case 'app_health':
    case 'round_trips':
    case 'stopping':
      return 2;
    case 'hello':
    case 'time':
    case 'apps':
    case 'tunnel_opened':
    case 'tunnel_closed':
    case 'grant_refused':
      return 1;
  }
}

function handleMessage(message: ToConnector, options: ControlLinkOptions): void {
  switch (message.type) {
    case 'leases':
      options.onLeases(message.statement);
      return;
    case 'log':
      options.onLog(message.statement);
      return;
    case 'app_ids':
      options.onAppIds(message.appIds);
      return;
    case 'relays':
      options.onRelays(message.statement);
      return;
    case 'welcome':
    case 'time':
    case 'bundle':
      return; // the channel's own
  }
}
