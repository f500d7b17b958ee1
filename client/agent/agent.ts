import type { TLSSocket } from 'node:tls';
import {
  ByteBudget,
  controlProtocol,
  errorRow,
  maxAvoidedRelays,
  signingKey,
  suspendableVersion,
  toZtnaError,
  ZtnaError,
  type DeviceId,
  type FromDevice,
  type RelayId,
  type SessionFacts,
  type ToDevice,
  type TunnelId,
} from '../../protocol/index.ts';
import {
  ControlClock,
  type DialOptions,
  KnownRelays,
  RevocationFeed,
  type Identity,
  type Logger,
  type RequestOf,
} from '../../protocol/host/index.ts';
import { expectAnswer, type Answer, type Request, type RequestType } from './agent-messages.ts';
import { dialControl } from './control-dial.ts';
import { ControlLink } from './control-link.ts';
import { openDeviceChannel, type DeviceChannel } from './device-channel.ts';
import { watchDraining } from './drain-watch.ts';
import { IdentityKeeper } from './identity-keeper.ts';
import { asPassing } from './last-word.ts';
import { PathOpener } from './path-opener.ts';
import { checkNextPath, readPermit, type Permit, type PermitAnswer } from './permit.ts';
import type { Profile } from './profile.ts';
import { isUnheard, PostureSender, type PostureSource } from './posture-sender.ts';
import { RelayBook } from './relay-book.ts';
import { TunnelNotices } from './tunnel-notices.ts';
import { Tunnel, type RekeyLimits } from './tunnel.ts';

/** How long a relay that took the connection may have an agent that was connected before wait for its turn. */
const comebackPatienceMs = 60_000;

/** How often every tunnel's lease is looked at. */
const tickEveryMs = 250;

/** How long the end of a tunnel may take when the agent stops. */
const closeWithinMs = 2_000;

/** Growth of what all tunnels together keep to be sent again on a later path. */
const replayBudgetBytes = 268_435_456;

export interface AgentOptions {
  readonly profile: Profile;
  readonly identity: Identity;
  readonly logger: Logger;
  /** Gives up connecting when it aborts. */
  readonly signal?: AbortSignal;
  /** The app that will be asked for first: its permission is requested, and its path dialled, while connecting. */
  readonly app?: string;
  /** What finds out about this machine; without it nothing is said of it, and policy takes every fact as unknown. */
  readonly posture?: PostureSource;
  /** When tunnels get new keys; the usual limits unless a test says otherwise. */
  readonly rekey?: RekeyLimits;
}

/**
 * Holds what one enrolled machine needs at one relay: keys, control channel, control time, revocation feed and
 * tunnels. Every command is a thin front end to one.
 */
export class Agent {
  readonly clock = new ControlClock();
  /** Called when policy holds a tunnel back, for another reason than before, or no more. */
  onHeldBack: () => void = () => undefined;
  readonly #logger: Logger;
  readonly #known: KnownRelays;
  readonly #book: RelayBook;
  readonly #keeper: IdentityKeeper;
  readonly #feed: RevocationFeed;
  readonly #notices: TunnelNotices;
  readonly #posture: PostureSender;
  readonly #rekey: RekeyLimits | undefined;
  readonly #replayBudget = new ByteBudget(replayBudgetBytes);
  readonly #tunnels = new Map<TunnelId, Tunnel>();
  /** Tunnels that were permitted and not opened yet. */
  readonly #permitted = new Set<TunnelId>();
  readonly #stopping = new AbortController();
  /** What `app` of the options was asked ahead, until it is used. */
  #ahead: { readonly app: string; readonly answer?: Promise<ToDevice> } | undefined;
  readonly #paths: PathOpener;
  /** Where the control channel is. */
  #controlUrl: string | undefined;
  #isConnected = false;
  #stopWatching: () => void = () => undefined;
  #link!: ControlLink<DeviceChannel>;
  #ticker: NodeJS.Timeout | undefined;

  /** Connects. Throws ERR_RELAY_UNREACHABLE, or what the relay refused this machine with. */
  static async start(options: AgentOptions): Promise<Agent> {
    const { signal, profile, logger } = options;
    const known = new KnownRelays({
      dir: profile.dir,
      bundle: () => agent.identity.bundle,
      logger,
    });
    const agent: Agent = new Agent(options, known);
    await known.load();
    const giveUp = (): void => agent.#stopping.abort();
    signal?.addEventListener('abort', giveUp, { once: true });
    if (signal?.aborted === true) giveUp();
    try {
      await agent.#connect();
    } catch (error) {
      agent.#keeper.stop();
      agent.#posture.stop();
      agent.#paths.drop();
      throw error;
    } finally {
      signal?.removeEventListener('abort', giveUp);
    }
    return agent;
  }

  private constructor(
    { profile, identity, logger, app, rekey, posture }: AgentOptions,
    known: KnownRelays,
  ) {
    this.#logger = logger;
    this.#rekey = rekey;
    this.#known = known;
    this.#book = new RelayBook(known);
    this.#paths = new PathOpener({
      identity: () => this.identity,
      book: this.#book,
      signal: this.#stopping.signal,
    });
    if (app !== undefined) this.#ahead = { app };
    this.#keeper = new IdentityKeeper(profile, identity, logger, () =>
      known.relays.map(({ url }) => url),
    );
    this.#feed = new RevocationFeed({ audience: identity.id, clock: this.clock });
    this.#notices = new TunnelNotices({
      tunnels: this.#tunnels,
      feed: this.#feed,
      bundle: () => this.identity.bundle,
    });
    this.#posture = new PostureSender({
      ...(posture && { source: posture }),
      clock: this.clock,
      device: () => ({
        id: this.identity.id as DeviceId,
        key: signingKey(this.identity.signingKey),
      }),
      send: (message) => {
        void this.#link.channel().then(
          (channel) => {
            channel.send(message);
          },
          () => undefined, // the next channel asks anew
        );
      },
    });
  }

  get identity(): Identity {
    return this.#keeper.identity;
  }

  /** The session of this machine as it was when the present control channel opened; null without one. */
  get session(): SessionFacts | null {
    return this.#link.current?.welcome.session ?? null;
  }

  /** Why this agent can go on no more, such as a revoked device; undefined after `stop`. Never rejects. */
  get ended(): Promise<ZtnaError | undefined> {
    return this.#link.ended;
  }

  /** What policy holds tunnels of this agent back for at present. */
  get heldBackFor(): ReadonlySet<string> {
    const held = [...this.#tunnels.values()].flatMap(({ suspension }) => suspension ?? []);
    return new Set(held.map(({ reason }) => reason));
  }

  /** Asks the control plane. Throws its refusal, or why it cannot be asked. */
  async request<T extends RequestType>(message: Request<T>): Promise<Answer<T>> {
    const channel = await this.#link.channel();
    // These answer by what the device has said of itself.
    const isByPosture = ['apps', 'why', 'posture_needs'].includes(message.type);
    if (isByPosture && channel.welcome.version >= suspendableVersion) await this.#posture.said();
    return expectAnswer(message.type, await this.#ask(channel, message));
  }

  /** Asks what policy needs of this device. Throws as `request`, and ERR_RELAY_UNAVAILABLE where the relay knows no posture. */
  async postureNeeds(): Promise<Answer<'posture_needs'>> {
    const channel = await this.#link.channel();
    if (channel.welcome.version < suspendableVersion) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { hop: 'relay', reason: 'version_old' });
    }
    return this.request({ type: 'posture_needs' });
  }

  /** Asks for a tunnel to the app. Throws the refusal, or ERR_STATEMENT_REFUSED for a permit that does not hold. */
  async requestPermit(app: string): Promise<Permit> {
    const permit = this.#readPermit(app, await this.#firstAnswer(app));
    this.#permitted.add(permit.verified.grant.tunnel);
    return permit;
  }

  /**
   * Opens the tunnel on the first of the permit's relays that can be reached, up to the handshake; `accepted` of the
   * tunnel follows. Throws why not.
   */
  async openTunnel(permit: Permit): Promise<Tunnel> {
    const { app, verified } = permit;
    try {
      const tunnel: Tunnel = new Tunnel({
        path: await this.#paths.open(permit),
        clock: this.clock,
        replayBudget: this.#replayBudget,
        ...(this.#rekey && { rekey: this.#rekey }),
        source: {
          requestPath: async (avoid) => this.#requestPath(app, tunnel, avoid),
          noteLost: (relay, error) => {
            this.#paths.noteLost(relay.url, error);
          },
          openPath: async (answer) => this.#paths.open(this.#readNextPath(app, tunnel, answer)),
        },
      });
      this.#permitted.delete(verified.grant.tunnel);
      this.#adopt(tunnel);
      return tunnel;
    } catch (error) {
      this.giveUp(permit);
      throw error;
    }
  }

  /** Hands a permission back that will not be used. */
  giveUp({ verified }: Permit): void {
    this.#giveUp(verified.grant.tunnel);
  }

  /** Closes a tunnel at both ends and tells the control plane. */
  async closeTunnel(tunnel: Tunnel, reason: string): Promise<void> {
    const { promise: tooLong, resolve } = Promise.withResolvers<undefined>();
    const timer = setTimeout(resolve, closeWithinMs, undefined);
    if (tunnel.isOpen) {
      const { isDetached } = tunnel;
      tunnel.end('ERR_TUNNEL_CLOSED', reason);
      // The connector hears of an end on the tunnel's path; where there is none, from the control plane alone.
      if (isDetached) await Promise.race([this.#link.channel().catch(() => undefined), tooLong]);
      this.#tellClosed(tunnel.grant.tunnel, reason);
    }
    await Promise.race([tunnel.gone(), tooLong]);
    clearTimeout(timer);
  }

  /** Closes every tunnel and the channel. Safe to call twice. */
  async stop(reason = 'agent_stopped'): Promise<void> {
    const tunnels = [...this.#tunnels.values()];
    await Promise.all(tunnels.map((tunnel) => this.closeTunnel(tunnel, reason)));
    for (const tunnel of [...this.#permitted]) this.#giveUp(tunnel);
    this.#stopping.abort();
    this.#posture.stop();
    clearInterval(this.#ticker);
    this.#stopWatching();
    this.#keeper.stop();
    this.#paths.drop();
    await this.#link.stop();
    await this.#known.saved();
  }

  /** A permission that will not be used. */
  #giveUp(tunnel: TunnelId): void {
    if (this.#permitted.delete(tunnel)) this.#tellClosed(tunnel, 'not_opened');
  }

  #tellClosed(tunnel: TunnelId, reason: string): void {
    this.#link.current?.send({ type: 'tunnel_closed', tunnel, reason });
  }

  async #connect(): Promise<void> {
    // A machine that was off for long renews first; one whose own clock is wrong loses a round trip by it.
    if (this.#keeper.isRenewalDue) await this.#tryRenewal();
    const [nearest = this.identity.relayUrl] = this.#book.controlUrls(this.identity.relayUrl);
    if (this.#ahead) this.#paths.dialAhead(nearest);
    try {
      await this.#startLink();
    } catch (error) {
      // The relay's clock decides when a certificate has ended, and ours may differ.
      if (toZtnaError(error).reason !== 'certificate_refused') throw error;
      await this.#keeper.renew();
      await this.#startLink();
    }
    this.#isConnected = true;
    this.#stopWatching = watchDraining(
      this.#known,
      () => this.#controlUrl,
      () => {
        this.#link.redial();
      },
    );
    this.#keeper.onRenewed = () => {
      this.#link.redial();
    };
    this.#keeper.start();
  }

  async #tryRenewal(): Promise<void> {
    try {
      await this.#keeper.renew();
    } catch (error) {
      this.#logger.info('certificate_renewal_failed', { code: toZtnaError(error).code });
    }
  }

  async #startLink(): Promise<void> {
    this.#link = await ControlLink.start<DeviceChannel>({
      logger: this.#logger,
      dial: (signal) => this.#dialChannel(signal),
    });
    void this.#link.ended.then((error) => {
      if (!error) return;
      // Whoever may not hold a channel may not hold a tunnel.
      for (const tunnel of this.#tunnels.values())
        tunnel.end(error.code, error.reason ?? 'channel_refused');
    });
  }

  /** As `#dialOnce`, and renews a certificate that is refused meanwhile: who issued it may be a control plane no more. */
  async #dialChannel(signal: AbortSignal): Promise<DeviceChannel> {
    try {
      return await this.#dialOnce(signal);
    } catch (error) {
      const isRefused = toZtnaError(error).reason === 'certificate_refused';
      if (isRefused && this.#isConnected) await this.#keeper.renewRefused();
      throw error;
    }
  }

  async #dialOnce(signal: AbortSignal): Promise<DeviceChannel> {
    const { url, channel } = await dialControl<DeviceChannel>({
      urls: this.#book.controlUrls(this.identity.relayUrl),
      book: this.#book,
      dial: (to) => this.#controlDial(to),
      open: async (to, socket) => this.#openChannel(to, socket, signal),
      logger: this.#logger,
      signal,
    });
    this.#known.noteLast(url);
    this.#controlUrl = url;
    void channel.closed.then(({ reason }) => {
      if (reason !== 'closed_here') this.#book.noteFailed(url);
    });
    return channel;
  }

  #controlDial(url: string): DialOptions {
    const dial = { url, alpn: controlProtocol, serverRole: 'control-plane' } as const;
    // Whoever has tunnels waits for its turn; a person who asks for the first is told that it takes too long.
    const patience = this.#isConnected ? { patienceMs: comebackPatienceMs } : {};
    return { ...dial, identity: this.identity, ...patience };
  }

  async #openChannel(url: string, socket: TLSSocket, signal: AbortSignal): Promise<DeviceChannel> {
    const app = this.#ahead?.app;
    const channel = await openDeviceChannel({
      dial: { ...this.#controlDial(url), socket, signal },
      app,
      tunnels: [...this.#tunnels.keys()],
      keeper: this.#keeper,
      clock: this.clock,
      onMessage: (message) => {
        this.#onMessage(message);
      },
      logger: this.#logger,
      signal: AbortSignal.any([signal, this.#stopping.signal]),
    });
    const [answer] = channel.answers;
    this.#ahead = app === undefined || !answer ? undefined : { app, answer };
    return channel;
  }

  #onMessage(message: ToDevice): void {
    if (this.#notices.take(message)) return;
    if (message.type === 'relays') {
      this.#known.take(message.statement);
    } else if (message.type === 'posture_wanted') {
      this.#posture.wanted(message);
    } else if (message.type === 'session_ended') {
      this.#logger.info('session_ended', { reason: message.reason });
    } else {
      throw new ZtnaError('ERR_MESSAGE_UNEXPECTED', { hop: 'relay' });
    }
  }

  /** What was asked ahead, or else now. A device that was refused before it said anything of itself asks once more. */
  async #firstAnswer(app: string): Promise<Answer<'grant'> | Answer<'path'>> {
    const ahead = this.#ahead;
    this.#ahead = undefined;
    const hadSaid = this.#posture.hasSaid;
    try {
      if (ahead?.app === app && ahead.answer) return expectAnswer('grant', await ahead.answer);
      return await this.#askForTunnel(app);
    } catch (error) {
      if (hadSaid || !isUnheard(toZtnaError(error))) throw error;
      await this.#posture.said();
      return this.#askForTunnel(app);
    }
  }

  /** Asks for a new tunnel, and to leave out relays that failed where the control plane understands that. */
  async #askForTunnel(app: string): Promise<Answer<'grant'> | Answer<'path'>> {
    const channel = await this.#link.channel();
    if (channel.welcome.version < 2) return this.request({ type: 'grant', app });
    return this.request({ type: 'path', app, tunnel: null, avoid: this.#book.avoided() });
  }

  #readingAt(): { readonly identity: Identity; readonly nowMs: number } {
    return { identity: this.identity, nowMs: this.clock.require() };
  }

  /** Asks for another path of a tunnel. Throws the refusal, or why nobody could be asked. */
  async #requestPath(
    app: string,
    { grant }: Tunnel,
    avoid: readonly RelayId[],
  ): Promise<PermitAnswer> {
    const { tunnel } = grant;
    const channel = await this.#link.channel();
    if (channel.welcome.version < 2) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { hop: 'relay', reason: 'version_old' });
    }
    const all = [...new Set([...avoid, ...this.#book.avoided()])].slice(0, maxAvoidedRelays);
    const request: Request<'path'> = { type: 'path', app, tunnel, avoid: all };
    return expectAnswer('path', await this.#ask(channel, request));
  }

  /** The answer. Throws the refusal; a channel that was lost meanwhile refuses nothing, whatever it was lost by. */
  async #ask<T extends RequestType>(
    channel: DeviceChannel,
    message: Request<T>,
  ): Promise<ToDevice> {
    try {
      return await channel.request(message as RequestOf<FromDevice>);
    } catch (error) {
      throw channel.failure ? asPassing(toZtnaError(error)) : error;
    }
  }

  /** Throws ERR_STATEMENT_REFUSED, and leaves the control plane that answered so, where its keys do not bear it out. */
  #readPermit(app: string, answer: PermitAnswer): Permit {
    try {
      return readPermit(app, answer, this.#readingAt());
    } catch (error) {
      const isUnproved = toZtnaError(error).code === 'ERR_STATEMENT_REFUSED';
      if (isUnproved && this.#controlUrl !== undefined) {
        this.#book.noteFailed(this.#controlUrl);
        this.#link.redial();
      }
      throw error;
    }
  }

  /** Throws for permission that does not hold here, or is for something else than the tunnel's next path. */
  #readNextPath(app: string, { grant }: Tunnel, answer: PermitAnswer): Permit {
    const permit = this.#readPermit(app, answer);
    checkNextPath(permit.verified, grant);
    return permit;
  }

  #adopt(tunnel: Tunnel): void {
    if (this.#stopping.signal.aborted) {
      tunnel.end('ERR_TUNNEL_CLOSED', 'agent_stopped');
      return;
    }
    const { tunnel: id } = tunnel.grant;
    this.#tunnels.set(id, tunnel);
    this.#ticker ??= setInterval(() => {
      for (const each of this.#tunnels.values()) each.tick();
    }, tickEveryMs);
    tunnel.onPath = () => {
      this.#notices.enforce(); // what was revoked while the path was being opened
    };
    tunnel.onSuspension = () => {
      this.onHeldBack();
    };
    void tunnel.closed.then(({ code, reason }) => {
      this.#tunnels.delete(id);
      this.onHeldBack();
      // Kept at the connector for its hold time, unless it hears of the end.
      const isKept = errorRow(code).family !== 'denied' && code !== 'ERR_TUNNEL_CLOSED';
      if (isKept && tunnel.grant.version >= 2) this.#tellClosed(id, reason ?? 'not_wanted');
      if (this.#tunnels.size > 0) return;
      clearInterval(this.#ticker);
      this.#ticker = undefined;
    });
    this.#notices.enforce(); // what was revoked while it was being opened
  }
}
