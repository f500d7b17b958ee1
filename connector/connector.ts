import {
  ByteBudget,
  newId,
  toZtnaError,
  type ConnectorId,
  type ZtnaError,
} from '../protocol/index.ts';
import {
  ControlClock,
  describeProxy,
  KnownRelays,
  RevocationFeed,
  type Logger,
} from '../protocol/host/index.ts';
import { AppHealth } from './app-health.ts';
import { ControlLinks } from './control-links.ts';
import { dialSlot } from './dial-slot.ts';
import { leaseTickMs, maxReplayGrowthBytes, maxSlots, maxWindowGrowthBytes } from './limits.ts';
import { describeLink, findProblems } from './readiness.ts';
import { RelaySlots } from './relay-slots.ts';
import { RoundTripReporter } from './round-trip-reporter.ts';
import { RoutedApps } from './routed-apps.ts';
import { StreamBudget } from './stream-budget.ts';
import { TunnelOpener } from './tunnel-opener.ts';
import { TunnelTable } from './tunnel-table.ts';
import { UsedGrants } from './used-grants.ts';
import type { checkApp } from './app-check.ts';
import type { AppMap } from './app-map.ts';
import type { ControlLink } from './control-link.ts';
import type { Tunnel } from './tunnel.ts';
import { EnforcementReport } from './enforcement-report.ts';
import type { IdentityKeeper } from './identity-keeper.ts';
import type { Metrics } from './metrics.ts';
import type { ConnectorStatus } from './status-socket.ts';

export interface ConnectorOptions {
  readonly keeper: IdentityKeeper;
  readonly apps: AppMap;
  readonly metrics: Metrics;
  readonly logger: Logger;
  readonly software: string;
  readonly isSealed: boolean;
  /** The deployment's relays, as kept from before. */
  readonly known?: KnownRelays;
  /** The usual ones unless a test says otherwise. */
  readonly streams?: StreamBudget;
  readonly checkApp?: typeof checkApp;
  /** For tests: the usual time after which a relay is wedged. */
  readonly wedgedAfterMs?: number;
  /** Called once, when the connector can carry a tunnel for the first time. */
  readonly onReady: () => void;
}

/**
 * One connector process: its app map, a channel to each control plane, idle sockets at each relay, and its tunnels. The
 * last channel to be lost takes the idle sockets with it; tunnels live on for as long as their leases do.
 */
export class Connector {
  readonly #options: ConnectorOptions;
  readonly #instance = newId('instance');
  readonly #clock = new ControlClock();
  readonly #table = new TunnelTable<Tunnel>();
  readonly #usedGrants = new UsedGrants();
  readonly #feed: RevocationFeed;
  readonly #opener: TunnelOpener;
  readonly #apps: RoutedApps;
  readonly #known: KnownRelays;
  readonly #links: ControlLinks;
  readonly #slots: RelaySlots;
  readonly #roundTrips: RoundTripReporter;
  #lastError: ZtnaError | undefined;
  #hasBeenReady = false;
  #isStopping = false;
  #hasStopped = false;
  /** Ends a drain early when the last tunnel is gone. */
  #onEmpty: (() => void) | undefined;
  readonly #health: AppHealth;
  readonly #report: EnforcementReport<Tunnel>;
  #isHealthTold = true;

  constructor(options: ConnectorOptions) {
    const { keeper, metrics, logger } = options;
    this.#options = options;
    this.#apps = new RoutedApps(options.apps, logger);
    const connector = keeper.identity.id as ConnectorId;
    this.#feed = new RevocationFeed({ audience: connector, clock: this.#clock });
    this.#health = new AppHealth({
      logger,
      onChange: () => {
        this.#tellHealthSoon();
      },
      ...(options.checkApp === undefined ? {} : { check: options.checkApp }),
    });
    this.#known =
      options.known ?? new KnownRelays({ bundle: () => keeper.identity.bundle, logger });
    this.#links = this.#newLinks();
    this.#slots = new RelaySlots({
      // The certificate is read at each dial, so that a renewed one is in use as soon as sockets are replaced.
      dial: (url, signal) =>
        dialSlot(url, { identity: keeper.identity, instance: this.#instance }, signal),
      onAssign: (socket, assign, relay) => {
        this.#opener.open(socket, assign, relay);
      },
      onChange: () => {
        this.#checkReady();
      },
      logger,
      ...(options.wedgedAfterMs === undefined ? {} : { wedgedAfterMs: options.wedgedAfterMs }),
    });
    this.#report = new EnforcementReport({
      keeper,
      clock: this.#clock,
      tunnels: () => this.#table.all(),
      links: () => this.#links.open,
    });
    this.#roundTrips = new RoundTripReporter({
      states: () => this.#slots.states,
      links: () => this.#links.open,
    });
    this.#opener = new TunnelOpener({
      identity: () => keeper.identity,
      gate: {
        bundle: () => keeper.identity.bundle,
        connector,
        instance: this.#instance,
        nowMs: () => this.#clock.nowMs(),
        feed: this.#feed,
        apps: () => this.#apps.served,
        usedGrants: this.#usedGrants,
        openTunnels: () => this.#table,
      },
      table: this.#table,
      budget: new ByteBudget(maxWindowGrowthBytes),
      replayBudget: new ByteBudget(maxReplayGrowthBytes),
      streams: options.streams ?? new StreamBudget(),
      metrics,
      logger,
      tell: (message) => {
        this.#links.tell(message);
        if (message.type === 'tunnel_closed' && this.#table.total === 0) this.#onEmpty?.();
      },
    });
  }

  /** True while tunnels can be opened through every relay that was assigned. */
  get isReady(): boolean {
    return this.problems().length === 0;
  }

  /** What keeps the connector from being ready, a line each. */
  problems(): string[] {
    if (this.#isStopping) return ['the connector is stopping'];
    const isTimeKnown = this.#clock.nowMs() !== undefined;
    return findProblems(this.#links.states, this.#slots.states, isTimeKnown);
  }

  /**
   * Takes no new tunnels from here on, and resolves when the last one has ended, or when `forMs` have passed. What is
   * open goes on meanwhile.
   */
  async drain(forMs: number): Promise<void> {
    this.#isStopping = true;
    this.#options.logger.info('draining', { tunnels: this.#table.total, forMs });
    for (const link of this.#links.open) this.#announceStop(link);
    if (this.#table.total === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, forMs);
      this.#onEmpty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#onEmpty = undefined;
  }

  /**
   * Dials and serves until the signal aborts, then ends every tunnel with its reason. Throws ERR_IDENTITY_REVOKED and
   * ERR_CONNECTOR_REPLACED alone: nothing else is final.
   */
  async run(signal: AbortSignal): Promise<void> {
    let ending: 'stopping' | 'revoked' | 'replaced' = 'stopping';
    const tick = setInterval(() => {
      this.#report.cut(this.#table.enforceLeases(), null, this.#feed.incarnation);
    }, leaseTickMs);
    const stop = () => {
      this.#stop('connector_stopping');
    };
    signal.addEventListener('abort', stop, { once: true });
    this.#health.watch(this.#apps.map);
    const forget = this.#known.onChange(() => {
      this.#useRelays();
    });
    try {
      this.#roundTrips.start();
      await this.#links.run(signal);
    } catch (error) {
      ending = toZtnaError(error).code === 'ERR_CONNECTOR_REPLACED' ? 'replaced' : 'revoked';
      throw error;
    } finally {
      clearInterval(tick);
      this.#report.stop();
      this.#roundTrips.stop();
      forget();
      signal.removeEventListener('abort', stop);
      this.#health.stop();
      this.#stop(`connector_${ending}`);
    }
  }

  /** Takes another map; tunnels of the apps named `gone` end. */
  changeApps(apps: AppMap, gone: readonly string[]): void {
    this.#apps.publish(apps);
    this.#health.watch(apps);
    this.#links.send({ type: 'apps', apps: [...apps.keys()] });
    this.#tellHealthSoon();
    this.#table.endApps(gone);
  }

  status(): ConnectorStatus {
    const { keeper, isSealed } = this.#options;
    const { identity } = keeper;
    const error = this.#isLinked ? undefined : this.#lastError;
    const [link] = this.#links.open;
    return {
      state: this.#isStopping ? 'stopping' : this.isReady ? 'ready' : 'waiting',
      connector: identity.id,
      name: link?.name ?? identity.profile['name'] ?? null,
      relay: identity.relayUrl,
      proxy: describeProxy(identity.relayUrl),
      instance: this.#instance,
      channel: this.#isLinked ? 'open' : 'lost',
      error: error ? { code: error.code, message: error.message } : null,
      slots: this.#slots.idleCount,
      tunnels: this.#table.total,
      detached: this.#table.detachedCount,
      streams: this.#table.streamCount,
      links: this.#links.states.map(describeLink),
      relays: this.#slots.states,
      problems: this.problems(),
      apps: this.#apps.describe((name) => this.#health.isUp(name)),
      certificateEndsAt: new Date(keeper.certificateEndsAtMs).toISOString(),
      sealed: isSealed,
    };
  }

  get #isLinked(): boolean {
    return this.#links.open.length > 0;
  }

  #newLinks(): ControlLinks {
    const { keeper, software, logger, metrics } = this.#options;
    return new ControlLinks({
      known: this.#known,
      enrolledAt: keeper.identity.relayUrl,
      link: {
        keeper,
        instance: this.#instance,
        software,
        clock: this.#clock,
        appNames: () => [...this.#apps.map.keys()],
        openTunnels: () => this.#table.ids(),
        logger,
        onAppIds: (appIds) => {
          this.#apps.route(appIds);
        },
        onLeases: (statement) => {
          this.#renew(statement);
        },
        onLog: (statement) => {
          this.#learnLog(statement);
        },
        onRelays: (statement) => {
          this.#known.take(statement);
        },
      },
      onOpen: (link) => {
        this.#opened(link);
      },
      onLost: (error) => {
        this.#lost(error);
      },
      onWaiting: (error, delayMs) => {
        this.#lastError = error;
        const { code, message, hint } = error;
        logger.warn('redial', { code, message, hint, delayMs });
        if (error.reason === 'certificate_refused') void keeper.renewRefused();
        metrics.count('channel_losses_total');
      },
      isFatal: ({ code }) => code === 'ERR_IDENTITY_REVOKED' || code === 'ERR_CONNECTOR_REPLACED',
      logger,
    });
  }

  #opened(link: ControlLink): void {
    const { logger } = this.#options;
    this.#lastError = undefined;
    logger.info('channel_open', {
      relay: link.url,
      name: link.name,
      proxy: describeProxy(link.url),
    });
    this.#tellPaths(link);
    this.#report.flush();
    if (this.#isStopping) this.#announceStop(link);
    this.#tellHealthSoon();
    this.#useRelays();
    this.#roundTrips.tell(link);
    this.#checkReady();
  }

  #lost(error: ZtnaError): void {
    this.#lastError = error;
    const { code, message } = error;
    this.#options.logger.warn('channel_lost', { code, message, tunnels: this.#table.total });
    this.#useRelays();
  }

  /** Idle sockets at every relay that takes tunnels, as long as any control plane can be reached. */
  #useRelays(): void {
    const [link] = this.#links.open;
    if (!link || this.#hasStopped) {
      this.#slots.stop();
      return;
    }
    const { relays: named, slots } = link.assigned;
    const lasting = this.#known.relays.filter(({ isDraining }) => !isDraining);
    const listed = lasting.length > 0 ? lasting : this.#known.relays;
    this.#slots.use(listed.length > 0 ? listed : named, Math.min(slots, maxSlots));
  }

  /**
   * Begins the end: the control plane sends no new tunnels here. What was granted before and what is taken up again may
   * still come where it knows that word, and finds one socket at each relay.
   */
  #announceStop(link: ControlLink): void {
    link.send({ type: 'stopping' });
    this.#slots.shrinkTo(link.version >= 2 ? 1 : 0);
  }

  #renew(statement: string): void {
    const { identity } = this.#options.keeper;
    const counted = this.#table.renew(statement, identity.bundle, identity.id as ConnectorId);
    this.#options.metrics.count('renewals_total', {}, counted);
  }

  #learnLog(statement: string): void {
    for (const entry of this.#feed.receive(statement, this.#options.keeper.identity.bundle)) {
      const { position, action, reason } = entry;
      this.#options.logger.info('log_entry', {
        position,
        action,
        subject: entry.subject.id,
        reason,
      });
      const { incarnation } = this.#feed;
      this.#report.cut(this.#table.endAbout(entry, incarnation), entry, incarnation);
    }
  }

  /** How each tunnel stands: what was said just before the last channel was lost may not have arrived. */
  #tellPaths(link: ControlLink): void {
    for (const { grant, isDetached } of this.#table.all()) {
      const { tunnel, generation } = grant;
      if (isDetached) {
        link.send({ type: 'tunnel_detached', tunnel, generation, reason: 'still_detached' });
      } else if (generation > 1) {
        link.send({ type: 'tunnel_resumed', tunnel, generation });
      }
    }
  }

  #checkReady(): void {
    if (this.#hasBeenReady || !this.isReady) return;
    this.#hasBeenReady = true;
    this.#options.onReady();
  }

  #stop(reason: string): void {
    if (this.#hasStopped) return;
    this.#hasStopped = true;
    this.#isStopping = true;
    this.#table.endAll('ERR_RELAY_DRAINING', reason);
    this.#slots.stop();
    this.#links.close();
  }

  /** Tells what the checks found, once for all changes of this turn. */
  #tellHealthSoon(): void {
    if (!this.#isHealthTold) return;
    this.#isHealthTold = false;
    setImmediate(() => {
      this.#isHealthTold = true;
      this.#links.send({ type: 'app_health', apps: this.#health.results() });
    });
  }
}
