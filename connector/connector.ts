import {
  ByteBudget,
  newId,
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
import { servedApps, type AppMap, type ServedApp } from './app-map.ts';
import { ControlLink } from './control-link.ts';
import { leaseTickMs, maxUntoldEnds, maxWindowGrowthBytes } from './limits.ts';
import { StreamBudget } from './stream-budget.ts';
import { formatTarget } from './target.ts';
import { TunnelOpener } from './tunnel-opener.ts';
import { TunnelTable } from './tunnel-table.ts';
import { UsedGrants } from './used-grants.ts';
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

  constructor(options: ConnectorOptions) {
    const { keeper, metrics, logger } = options;
    this.#options = options;
    this.#apps = options.apps;
    const connector = keeper.identity.id as ConnectorId;
    this.#feed = new RevocationFeed({ audience: connector, clock: this.#clock });
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
      },
    });
  }

  /** True while a tunnel could be opened: channel open, time known, sockets waiting. */
  get isReady(): boolean {
    return !this.#isStopping && this.#link?.isFilled === true && this.#clock.nowMs() !== undefined;
  }

  /**
   * Dials and serves until the signal aborts, then ends every tunnel with its reason. Throws
   * ERR_IDENTITY_REVOKED alone: nothing else is final.
   */
  async run(signal: AbortSignal): Promise<void> {
    const tick = setInterval(() => {
      this.#table.enforceLeases();
    }, leaseTickMs);
    const stop = () => {
      this.#stop('connector_stopping');
    };
    signal.addEventListener('abort', stop, { once: true });
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
        isFatal: (error) => error.code === 'ERR_IDENTITY_REVOKED',
      });
    } finally {
      clearInterval(tick);
      signal.removeEventListener('abort', stop);
      this.#stop(signal.aborted ? 'connector_stopping' : 'connector_revoked');
    }
  }

  /** Takes another map; tunnels of the apps named `gone` end. */
  changeApps(apps: AppMap, gone: readonly string[]): void {
    this.#apps = apps;
    this.#serve();
    this.#link?.send({ type: 'apps', apps: [...apps.keys()] });
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
      apps: [...this.#apps].map(([name, target]) => ({
        name,
        target: formatTarget(target),
        routed: routed.has(name),
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
    if (this.#isStopping) return;
    this.#isStopping = true;
    this.#table.endAll('ERR_RELAY_DRAINING', reason);
    this.#link?.close();
  }
}
