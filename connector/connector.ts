import {
  ByteBudget,
  newId,
  toZtnaError,
  type AppId,
  type ConnectorId,
  type FromConnector,
  type ZtnaError,
} from '../protocol/index.ts';
import {
  ControlClock,
  describeProxy,
  redialForever,
  RevocationFeed,
  type Logger,
} from '../protocol/host/index.ts';
import { AppHealth } from './app-health.ts';
import { servedApps, type AppMap, type ServedApp } from './app-map.ts';
import { ControlLink } from './control-link.ts';
import { leaseTickMs, maxUntoldEnds, maxWindowGrowthBytes } from './limits.ts';
import { StreamBudget } from './stream-budget.ts';
import { formatTarget } from './target.ts';
import { TunnelOpener } from './tunnel-opener.ts';
import { TunnelTable } from './tunnel-table.ts';
import { UsedGrants } from './used-grants.ts';
import type { checkApp } from './app-check.ts';
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
  /** The usual one unless a test says otherwise. */
  readonly streams?: StreamBudget;
  /** The usual one unless a test says otherwise. */
  readonly checkApp?: typeof checkApp;
  /** Called once, when the connector can carry a tunnel for the first time. */
  readonly onReady: () => void;
}

/**
 * One connector process: its app map, its control channel with the idle sockets of it, and its tunnels. A lost
 * channel takes the idle sockets with it; tunnels live on for as long as their leases do.
 */
export class Connector {
  readonly #options: ConnectorOptions;
  readonly #instance = newId('instance');
  readonly #clock = new ControlClock();
  readonly #table = new TunnelTable();
  readonly #usedGrants = new UsedGrants();
  readonly #feed: RevocationFeed;
  readonly #opener: TunnelOpener;
  #apps: AppMap;
  #appIds: readonly (readonly [string, AppId])[] = [];
  #served: ReadonlyMap<AppId, ServedApp> = new Map();
  #link: ControlLink | undefined;
  #lastError: ZtnaError | undefined;
  #untold: FromConnector[] = [];
  #hasBeenReady = false;
  #isStopping = false;
  #hasStopped = false;
  /** Ends a drain early when the last tunnel is gone. */
  #onEmpty: (() => void) | undefined;
  readonly #health: AppHealth;
  #isHealthTold = true;

  constructor(options: ConnectorOptions) {
    const { keeper, metrics, logger } = options;
    this.#options = options;
    this.#apps = options.apps;
    const connector = keeper.identity.id as ConnectorId;
    this.#feed = new RevocationFeed({ audience: connector, clock: this.#clock });
    this.#health = new AppHealth({
      logger,
      onChange: () => {
        this.#tellHealthSoon();
      },
      ...(options.checkApp === undefined ? {} : { check: options.checkApp }),
    });
    this.#opener = new TunnelOpener({
      identity: () => keeper.identity,
      gate: {
        bundle: () => keeper.identity.bundle,
        connector,
        instance: this.#instance,
        nowMs: () => this.#clock.nowMs(),
        feed: this.#feed,
        apps: () => this.#served,
        usedGrants: this.#usedGrants,
        openTunnels: () => this.#table,
      },
      table: this.#table,
      budget: new ByteBudget(maxWindowGrowthBytes),
      streams: options.streams ?? new StreamBudget(),
      metrics,
      logger,
      tell: (message) => {
        this.#tell(message);
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
    const link = this.#link;
    if (!link) {
      const error = this.#lastError;
      const why = error ? `: ${error.message} [${error.code}]` : '';
      return [`no control channel to ${this.#options.keeper.identity.relayUrl}${why}`];
    }
    if (this.#clock.nowMs() === undefined) return ['control time is unknown'];
    const relays = link.relayStates;
    const wedged = relays.filter(({ state }) => state === 'wedged');
    const counted = wedged.length > 0 ? wedged : relays;
    const isServing = relays.some(({ state }) => state === 'filled');
    if (isServing && wedged.length === 0) return [];
    if (relays.length === 0) return ['no relay is assigned'];
    return counted.map(
      ({ id, url, idle, wanted, state }) =>
        `relay ${id} ${url} is ${state}: ${idle} of ${wanted} idle sockets stand`,
    );
  }

  /**
   * Takes no new tunnels from here on, and resolves when the last one has ended, or when `forMs` have passed. What is
   * open goes on meanwhile.
   */
  async drain(forMs: number): Promise<void> {
    this.#isStopping = true;
    this.#options.logger.info('draining', { tunnels: this.#table.total, forMs });
    this.#link?.announceStop();
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
      this.#table.enforceLeases();
    }, leaseTickMs);
    const stop = () => {
      this.#stop('connector_stopping');
    };
    signal.addEventListener('abort', stop, { once: true });
    this.#health.watch(this.#apps);
    try {
      await redialForever({
        dial: (dialSignal) => this.#openLink(dialSignal),
        run: async (link) => {
          const error = await link.lost;
          this.#lost(error);
          return error;
        },
        signal,
        onWaiting: (error, delayMs) => {
          this.#lastError = error;
          const { code, message, hint } = error;
          this.#options.logger.warn('redial', { code, message, hint, delayMs });
          this.#options.metrics.count('channel_losses_total');
        },
        isFatal: ({ code }) => code === 'ERR_IDENTITY_REVOKED' || code === 'ERR_CONNECTOR_REPLACED',
      });
    } catch (error) {
      ending = toZtnaError(error).code === 'ERR_CONNECTOR_REPLACED' ? 'replaced' : 'revoked';
      throw error;
    } finally {
      clearInterval(tick);
      signal.removeEventListener('abort', stop);
      this.#health.stop();
      this.#stop(`connector_${ending}`);
    }
  }

  /** Takes another map; tunnels of the apps named `gone` end. */
  changeApps(apps: AppMap, gone: readonly string[]): void {
    this.#apps = apps;
    this.#serve();
    this.#health.watch(apps);
    this.#link?.send({ type: 'apps', apps: [...apps.keys()] });
    this.#tellHealthSoon();
    this.#table.endApps(gone);
  }

  status(): ConnectorStatus {
    const { keeper, isSealed } = this.#options;
    const { identity } = keeper;
    const error = this.#link ? undefined : this.#lastError;
    const routed = new Set([...this.#served.values()].map((app) => app.name));
    return {
      state: this.#isStopping ? 'stopping' : this.isReady ? 'ready' : 'waiting',
      connector: identity.id,
      name: this.#link?.name ?? identity.profile['name'] ?? null,
      relay: identity.relayUrl,
      proxy: describeProxy(identity.relayUrl),
      instance: this.#instance,
      channel: this.#link ? 'open' : 'lost',
      error: error ? { code: error.code, message: error.message } : null,
      slots: this.#link?.idleSlots ?? 0,
      tunnels: this.#table.total,
      streams: this.#table.streamCount,
      relays: this.#link?.relayStates ?? [],
      problems: this.problems(),
      apps: [...this.#apps].map(([name, { target, check }]) => ({
        name,
        target: formatTarget(target),
        routed: routed.has(name),
        checked: check !== null,
        up: this.#health.isUp(name) ?? null,
      })),
      certificateEndsAt: new Date(keeper.certificateEndsAtMs).toISOString(),
      sealed: isSealed,
    };
  }

  async #openLink(signal: AbortSignal): Promise<ControlLink> {
    const { keeper, software, logger } = this.#options;
    const link = await ControlLink.open({
      keeper,
      instance: this.#instance,
      software,
      clock: this.#clock,
      appNames: () => [...this.#apps.keys()],
      openTunnels: () => this.#table.ids(),
      logger,
      signal,
      onAppIds: (appIds) => {
        this.#appIds = appIds;
        this.#serve();
      },
      onLeases: (statement) => {
        this.#renew(statement);
      },
      onLog: (statement) => {
        this.#learnLog(statement);
      },
      onAssign: (socket, assign, relay) => {
        this.#opener.open(socket, assign, relay);
      },
      onSlots: () => {
        this.#checkReady();
      },
    });
    this.#link = link;
    this.#lastError = undefined;
    const relay = keeper.identity.relayUrl;
    logger.info('channel_open', { relay, name: link.name, proxy: describeProxy(relay) });
    for (const message of this.#untold.splice(0)) link.send(message);
    if (this.#isStopping) link.announceStop();
    this.#tellHealthSoon();
    this.#checkReady();
    return link;
  }

  #lost(error: ZtnaError): void {
    this.#link = undefined;
    this.#lastError = error;
    const { code, message } = error;
    this.#options.logger.warn('channel_lost', { code, message, tunnels: this.#table.total });
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
      this.#table.endAbout(entry, this.#feed.incarnation);
    }
  }

  #serve(): void {
    this.#served = servedApps(this.#apps, this.#appIds);
    const missing = [...this.#apps.keys()].filter(
      (name) => !this.#appIds.some(([known]) => known === name),
    );
    if (missing.length > 0) {
      this.#options.logger.warn('apps_not_routed', {
        apps: missing.join(' '),
        fix: 'add them on the relay: ztna-relay app add NAME --site SITE',
      });
    }
  }

  /** What happened while nobody listened is told when the channel is back. */
  #tell(message: FromConnector): void {
    if (this.#link) this.#link.send(message);
    else if (this.#untold.length < maxUntoldEnds) this.#untold.push(message);
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
    this.#link?.close();
  }

  /** Tells what the checks found, once for all changes of this turn. */
  #tellHealthSoon(): void {
    if (!this.#isHealthTold) return;
    this.#isHealthTold = false;
    setImmediate(() => {
      this.#isHealthTold = true;
      this.#link?.send({ type: 'app_health', apps: this.#health.results() });
    });
  }
}
