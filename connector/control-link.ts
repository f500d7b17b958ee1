import {
  controlProtocol,
  dataProtocol,
  fromConnector,
  instanceHeader,
  slotPath,
  toConnector,
  wireVersions,
  ZtnaError,
  type AppId,
  type FromConnector,
  type InstanceId,
  type RelayId,
  type ToConnector,
  type Assign,
  type TunnelId,
} from '../protocol/index.ts';
import {
  ControlChannel,
  dialWebSocket,
  type ControlClock,
  type Logger,
} from '../protocol/host/index.ts';
import { maxRelays, maxSlots } from './limits.ts';
import { Slots, type SlotsState } from './slots.ts';
import type { IdentityKeeper } from './identity-keeper.ts';
import type { WebSocket } from 'ws';

export interface ControlLinkOptions {
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
  readonly onAssign: (socket: WebSocket, assign: Assign, relay: RelayId) => void;
  readonly onSlots: () => void;
}

/** How the idle sockets at one relay stand. */
export interface RelayState {
  readonly id: RelayId;
  readonly url: string;
  readonly idle: number;
  readonly wanted: number;
  readonly state: SlotsState;
}

/** One control channel, and the idle data WebSockets that live and die with it. */
export class ControlLink {
  readonly #channel: ControlChannel<ToConnector, FromConnector>;
  readonly #relays: readonly {
    readonly id: RelayId;
    readonly url: string;
    readonly slots: Slots;
  }[];
  /** Resolves, with why, when the channel is lost and its idle sockets are closed. */
  readonly lost: Promise<ZtnaError>;

  /** Dials, greets and begins to fill the slots. Throws as `ControlChannel.open`. */
  static async open(options: ControlLinkOptions): Promise<ControlLink> {
    const { keeper, instance, software, clock, logger, signal } = options;
    const { identity } = keeper;
    const channel = await ControlChannel.open<ToConnector, FromConnector>({
      dial: {
        url: identity.relayUrl,
        alpn: controlProtocol,
        serverRole: 'control-plane',
        identity,
      },
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
    return new ControlLink(channel, options);
  }

  private constructor(
    channel: ControlChannel<ToConnector, FromConnector>,
    options: ControlLinkOptions,
  ) {
    this.#channel = channel;
    const { welcome } = channel;
    options.onAppIds(welcome.appIds);
    const count = Math.min(welcome.slots, maxSlots);
    this.#relays = welcome.relays.slice(0, maxRelays).map((relay) => ({
      ...relay,
      slots: new Slots({
        relay: relay.id,
        count,
        dial: (signal) => dialSlot(relay.url, options, signal),
        onAssign: (socket, assign) => {
          options.onAssign(socket, assign, relay.id);
        },
        onChange: options.onSlots,
        logger: options.logger,
      }),
    }));
    this.lost = channel.closed.then((error) => {
      for (const { slots } of this.#relays) slots.stop();
      return error;
    });
  }

  get name(): string {
    return this.#channel.welcome.name;
  }

  get idleSlots(): number {
    return this.#relays.reduce((sum, { slots }) => sum + slots.idleCount, 0);
  }

  /** How the idle sockets at each relay stand. */
  get relayStates(): RelayState[] {
    return this.#relays.map(({ id, url, slots }) => ({
      id,
      url,
      idle: slots.idleCount,
      wanted: slots.count,
      state: slots.state,
    }));
  }

  /**
   * Begins the end: the control plane sends no new tunnels here. What was granted before and what is taken up again may
   * still come where it knows that word, and finds one socket at each relay.
   */
  announceStop(): void {
    const isKnown = this.#channel.welcome.version >= 2;
    this.send({ type: 'stopping' });
    for (const { slots } of this.#relays) slots.shrinkTo(isKnown ? 1 : 0);
  }

  /** Sends a message, or drops it where the control plane is of a version that does not know it. */
  send(message: FromConnector): void {
    const isKnown = this.#channel.welcome.version >= 2 || !isSecondVersion(message.type);
    if (isKnown) this.#channel.send(message);
  }

  close(): void {
    for (const { slots } of this.#relays) slots.stop();
    this.#channel.close();
  }
}

/** Messages that the first version does not have. */
function isSecondVersion(type: FromConnector['type']): boolean {
  switch (type) {
    case 'tunnel_detached':
    case 'tunnel_resumed':
    case 'app_health':
    case 'round_trips':
    case 'stopping':
      return true;
    case 'hello':
    case 'time':
    case 'apps':
    case 'tunnel_opened':
    case 'tunnel_closed':
    case 'grant_refused':
      return false;
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
    case 'welcome':
    case 'time':
    case 'bundle':
      return; // the channel's own
    case 'relays':
      return; // where to dial comes with the welcome
  }
}

/** The certificate is read at each dial, so that a renewed one is in use as soon as sockets are replaced. */
function dialSlot(
  url: string,
  options: ControlLinkOptions,
  signal: AbortSignal,
): Promise<WebSocket> {
  return dialWebSocket({
    url,
    alpn: dataProtocol,
    serverRole: 'data-plane',
    identity: options.keeper.identity,
    path: slotPath,
    headers: { [instanceHeader]: options.instance },
    signal,
  });
}
