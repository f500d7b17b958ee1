import { setTimeout as sleep } from 'node:timers/promises';
import {
  createLogger,
  isSealed,
  KnownRelays,
  logLevel,
  openStateDir,
  shutdownCause,
  shutdownSignal,
  softwareVersion,
} from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';
import { parseAdminAddress, startAdminListener } from '../admin-listener.ts';
import { parseAppArguments } from '../app-map.ts';
import { AppSource } from '../app-source.ts';
import { Connector } from '../connector.ts';
import { IdentityKeeper } from '../identity-keeper.ts';
import { Metrics } from '../metrics.ts';
import { startStatusSocket, type ConnectorStatus } from '../status-socket.ts';
import { identityForRun } from './enroll.ts';

export interface RunOptions {
  readonly dir: string;
  readonly enroll: string | undefined;
  readonly apps: readonly string[];
  readonly adminListen: string | undefined;
}

/** `ztna-connector run`: serves until it is told to stop. Prints `ready` when it can carry a tunnel. */
export async function runConnector(options: RunOptions): Promise<void> {
  const flags = parseAppArguments(options.apps);
  const adminAddress =
    options.adminListen === undefined ? undefined : parseAdminAddress(options.adminListen);
  const logger = createLogger({ program: 'ztna-connector', level: logLevel() });
  const shutdown = shutdownSignal();
  const ending = new AbortController();
  const signal = AbortSignal.any([shutdown, ending.signal]);
  const stops: (() => Promise<void> | void)[] = [];
  const current: { connector?: Connector } = {};
  const status = () => current.connector?.status() ?? startingStatus;
  try {
    const dir = await openStateDir(options.dir);
    // First of all: two processes that share an identity would void each other's grants.
    const statusSocket = await startStatusSocket(dir, status);
    stops.push(statusSocket.stop);
    const source = await AppSource.open({
      dir,
      flags,
      logger,
      onChange: (apps, gone) => current.connector?.changeApps(apps, gone),
    });
    const onHangUp = () => {
      void source.reload();
    };
    process.on('SIGHUP', onHangUp);
    stops.push(() => {
      process.off('SIGHUP', onHangUp);
      source.stop();
    });
    const metrics = new Metrics();
    if (adminAddress) {
      const admin = await startAdminListener(adminAddress, {
        problems: () => status().problems,
        metrics: () => metrics.render(gaugesOf(status()), appsUpOf(status())),
      });
      stops.push(admin.stop);
      logger.info('admin_listening', { host: adminAddress.host, port: admin.port });
    }
    const identity = await identityForRun(dir, options.enroll);
    const known: KnownRelays = new KnownRelays({
      dir,
      bundle: () => keeper.identity.bundle,
      logger,
    });
    const keeper = new IdentityKeeper({
      dir,
      identity,
      logger,
      urls: () => known.relays.map(({ url }) => url),
      onRevoked: (error) => {
        ending.abort(error);
      },
    });
    stops.push(() => {
      keeper.stop();
    });
    await known.load();
    stops.push(() => known.saved());
    await renewIfEnded(keeper, signal);
    const connector = new Connector({
      keeper,
      known,
      apps: source.apps,
      metrics,
      logger,
      software: `ztna-connector ${softwareVersion()}`,
      isSealed: await isSealed(dir),
      onReady: () => {
        logger.info('ready', { apps: source.apps.size });
        process.stdout.write('ready\n');
      },
    });
    current.connector = connector;
    if (source.apps.size === 0) {
      logger.warn('no_apps', {
        fix: 'name apps with --app NAME=tcp://HOST:PORT or in connector.yaml',
      });
    }
    const onShutdown = () => {
      void drainThenEnd(connector, source, ending);
    };
    shutdown.addEventListener('abort', onShutdown, { once: true });
    if (shutdown.aborted) onShutdown();
    await connector.run(ending.signal);
    if (ending.signal.aborted && !shutdown.aborted) throw ending.signal.reason;
  } catch (error) {
    throw explainEnd(error, options.dir);
  } finally {
    for (const stop of stops.reverse()) await stop();
  }
}

function explainEnd(error: unknown, dir: string): unknown {
  if (!(error instanceof ZtnaError)) return error;
  if (error.code === 'ERR_CONNECTOR_REPLACED') {
    return new ZtnaError('ERR_CONNECTOR_REPLACED', {
      message: 'a newer process uses the identity of this connector, so this one ends',
      hint: `run one process for each identity; for a second connector of the site enrol another directory than ${dir}`,
      hop: 'connector',
      cause: error,
    });
  }
  if (error.code !== 'ERR_IDENTITY_REVOKED') return error;
  return new ZtnaError('ERR_IDENTITY_REVOKED', {
    message: 'this connector was revoked, which is final',
    hint: `to serve these apps again, enrol into another directory than ${dir} with a new code from: ztna-relay invite connector`,
    hop: 'relay',
    cause: error,
  });
}

/** SIGTERM lets tunnels that are in use go on for a while; whoever presses Ctrl-C wants the end now. */
async function drainThenEnd(
  connector: Connector,
  source: AppSource,
  ending: AbortController,
): Promise<void> {
  if (shutdownCause() === 'SIGTERM') await connector.drain(source.drainForMs);
  ending.abort();
}

/** A certificate that has ended opens nothing, so without a new one there is no point in dialling. */
async function renewIfEnded(keeper: IdentityKeeper, signal: AbortSignal): Promise<void> {
  await keeper.start();
  while (Date.now() >= keeper.certificateEndsAtMs && !signal.aborted) {
    await sleep(500, undefined, { signal }).catch(() => undefined);
  }
}

function gaugesOf(status: ConnectorStatus): Record<string, number> {
  return {
    ready: status.state === 'ready' ? 1 : 0,
    channel_open: status.channel === 'open' ? 1 : 0,
    slots_idle: status.slots,
    tunnels_open: status.tunnels - status.detached,
    tunnels_detached: status.detached,
    streams_open: status.streams,
    apps: status.apps.length,
    certificate_ends_seconds: status.certificateEndsAt
      ? Date.parse(status.certificateEndsAt) / 1_000
      : 0,
  };
}

function appsUpOf({ apps }: ConnectorStatus): [string, boolean][] {
  return apps.flatMap(({ name, up }) => (up === null ? [] : [[name, up]]));
}

const startingStatus: ConnectorStatus = {
  state: 'waiting',
  connector: null,
  name: null,
  relay: null,
  proxy: null,
  instance: null,
  channel: null,
  error: null,
  slots: 0,
  tunnels: 0,
  detached: 0,
  streams: 0,
  links: [],
  relays: [],
  problems: ['the connector is starting'],
  apps: [],
  certificateEndsAt: null,
  sealed: null,
};
