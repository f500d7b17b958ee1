import {
  ByteBudget,
  identityVersion,
  signingKey,
  suspendableVersion,
  ZtnaError,
  type DeviceId,
  type SessionFacts,
  type ToDevice,
  type TunnelId,
} from '../../protocol/index.ts';
import {
  ControlClock,
  KnownRelays,
  RevocationFeed,
  type Identity,
  type Logger,
} from '../../protocol/host/index.ts';
import { checkIsKnown, type Answer, type Request, type RequestType } from './agent-messages.ts';
import { askOn } from './device-channel.ts';
import { DeviceLink } from './device-link.ts';
import { IdentityKeeper } from './identity-keeper.ts';
import { LiveTunnels } from './live-tunnels.ts';
import { PathOpener } from './path-opener.ts';
import type { RekeyLimits } from './path-turnover.ts';
import { PermitRequests } from './permit-requests.ts';
import type { Permit } from './permit.ts';
import type { Profile } from './profile.ts';
import { PostureSender, type PostureSource } from './posture-sender.ts';
import { RelayBook } from './relay-book.ts';
import { TunnelNotices } from './tunnel-notices.ts';
import { readServiceAccount } from './service-account.ts';
import { ServiceKeeper } from './service-keeper.ts';
import { Tunnel } from './tunnel.ts';

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
  readonly #keeper: IdentityKeeper;
  readonly #feed: RevocationFeed;
  readonly #notices: TunnelNotices;
  readonly #posture: PostureSender;
  readonly #rekey: RekeyLimits | undefined;
  readonly #replayBudget = new ByteBudget(replayBudgetBytes);
  readonly #tunnels: LiveTunnels;
  /** Tunnels that were permitted and not opened yet. */
  readonly #permitted = new Set<TunnelId>();
  readonly #stopping = new AbortController();
  readonly #paths: PathOpener;
  readonly #link: DeviceLink;
  readonly #permits: PermitRequests;
  #service: ServiceKeeper | undefined;

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
      await agent.#connect(options.app);
      await agent.#keepService(profile);
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
    const book = new RelayBook(known);
    this.#paths = new PathOpener({
      identity: () => this.identity,
      book,
      signal: this.#stopping.signal,
    });
    this.#keeper = new IdentityKeeper(profile, identity, logger, () =>
      known.relays.map(({ url }) => url),
    );
    this.#feed = new RevocationFeed({ audience: identity.id, clock: this.clock });
    this.#tunnels = new LiveTunnels({
      onPath: () => {
        this.#notices.enforce();
      },
      onHeldBack: () => {
        if (this.heldBackFor.has('sign_in_needed')) this.#service?.renew();
        this.onHeldBack();
      },
      onKeptElsewhere: (tunnel, reason) => {
        this.#tellClosed(tunnel, reason);
      },
    });
    this.#notices = new TunnelNotices({
      tunnels: this.#tunnels.byId,
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
    this.#link = new DeviceLink({
      keeper: this.#keeper,
      known,
      book,
      clock: this.clock,
      logger,
      app,
      tunnels: () => [...this.#tunnels.byId.keys()],
      onMessage: (message) => {
        this.#onMessage(message);
      },
      signal: this.#stopping.signal,
    });
    this.#permits = new PermitRequests({
      link: this.#link,
      book,
      posture: this.#posture,
      clock: this.clock,
      identity: () => this.identity,
    });
  }

  get identity(): Identity {
    return this.#keeper.identity;
  }

  /** The session of this machine as it was when the present control channel opened; null without one. */
  get session(): SessionFacts | null {
    return this.#link.current?.welcome.session ?? null;
  }

  /** True where the control plane knows sign-in elsewhere than on this terminal, and what is the user's own. */
  get knowsIdentity(): boolean {
    return (this.#link.current?.welcome.version ?? 0) >= identityVersion;
  }

  /** True on a machine of a service: it signs in by itself, and nobody is there to be asked. */
  get isService(): boolean {
    return this.#service !== undefined;
  }

  /** Why this agent can go on no more, such as a revoked device; undefined after `stop`. Never rejects. */
  get ended(): Promise<ZtnaError | undefined> {
    return this.#link.ended;
  }

  /** What policy holds tunnels of this agent back for at present. */
  get heldBackFor(): ReadonlySet<string> {
    return this.#tunnels.heldBackFor;
  }

  /** Asks the control plane. Throws its refusal, why it cannot be asked, and ERR_RELAY_UNAVAILABLE where it is too old for that. */
  async request<T extends RequestType>(message: Request<T>): Promise<Answer<T>> {
    const channel = await this.#link.channel();
    checkIsKnown(message.type, channel.welcome.version);
    // These answer by what the device has said of itself.
    const isByPosture = ['apps', 'why', 'posture_needs'].includes(message.type);
    if (isByPosture && channel.welcome.version >= suspendableVersion) await this.#posture.said();
    return askOn(channel, message);
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
    const ask = () => this.#permits.forTunnel(app);
    const permit = await (this.#service?.retry(ask) ?? ask());
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
          requestPath: async (avoid) => this.#permits.askForPath(app, tunnel.grant, avoid),
          noteLost: (relay, error) => {
            this.#paths.noteLost(relay.url, error);
          },
          openPath: async (answer) =>
            this.#paths.open(this.#permits.readNextPath(app, tunnel.grant, answer)),
        },
      });
      this.#permitted.delete(verified.grant.tunnel);
      if (this.#stopping.signal.aborted) tunnel.end('ERR_TUNNEL_CLOSED', 'agent_stopped');
      else this.#tunnels.add(tunnel);
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
    const tunnels = [...this.#tunnels.byId.values()];
    await Promise.all(tunnels.map((tunnel) => this.closeTunnel(tunnel, reason)));
    for (const tunnel of [...this.#permitted]) this.#giveUp(tunnel);
    this.#stopping.abort();
    this.#posture.stop();
    this.#tunnels.stop();
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

  async #connect(app: string | undefined): Promise<void> {
    await this.#link.start((url) => {
      if (app !== undefined) this.#paths.dialAhead(url);
    });
    void this.#link.ended.then((error) => {
      if (error) this.#tunnels.refuse(error);
    });
    this.#keeper.start();
  }

  /** On a machine of a service: has it signed in, and stay so. */
  async #keepService(profile: Profile): Promise<void> {
    const account = await readServiceAccount(profile, this.identity.id);
    if (!account) return;
    const { clock } = this;
    const signal = this.#stopping.signal;
    this.#service = new ServiceKeeper({
      account,
      agent: this,
      clock,
      logger: this.#logger,
      signal,
    });
    await this.#service.start(this.session);
  }

  #onMessage(message: ToDevice): void {
    if (this.#notices.take(message)) return;
    if (message.type === 'relays') {
      this.#known.take(message.statement);
    } else if (message.type === 'posture_wanted') {
      this.#posture.wanted(message);
    } else if (message.type === 'session_ended') {
      this.#logger.info('session_ended', { reason: message.reason });
      this.#service?.renew();
    } else {
      throw new ZtnaError('ERR_MESSAGE_UNEXPECTED', { hop: 'relay' });
    }
  }
}
