import { chmod, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { toZtnaError, verifyBundle, ZtnaError, type RelayId } from '../../protocol/index.ts';
import { openStateDir, type Logger } from '../../protocol/host/index.ts';
import { startAdminSocket } from './api/admin-socket.ts';
import { runCommand } from './api/table.ts';
import { createAuditLog, Refusals } from './audit/index.ts';
import { loadAuthority, openSealer } from './authority/index.ts';
import { holdGreetings } from './channel/hold-greetings.ts';
import { Upgrades } from './channel/upgrades.ts';
import { ensureBundle } from './enrolment/bundle.ts';
import { ServerCertificate } from './enrolment/own-certificate.ts';
import { answerEnrolment } from './enrolment/endpoint.ts';
import { healthMetrics } from './health/metrics.ts';
import { startHealthServer } from '../health-server.ts';
import { greetingWaitMs, pageRequests } from './limits.ts';
import { SignInThrottle } from './identity/index.ts';
import { ProviderBook } from './identity/oidc/provider-book.ts';
import { PageCertificate } from './listener/page-certificate.ts';
import { startSecureListener } from './listener/secure-listener.ts';
import { Throttle } from './listener/throttle.ts';
import { Absences } from './live/absences.ts';
import { LogFeed } from './live/log-feed.ts';
import { Peers } from './live/peers.ts';
import { leave, registerSelf } from './live/ownership.ts';
import { followOthers } from './live/refresh.ts';
import { TakeUps } from './live/take-ups.ts';
import { TunnelIndex } from './live/tunnel-index.ts';
import { answerWeb } from './web/routes.ts';
import { whenWentBack } from './live/went-back.ts';
import { checkPolicies, PolicyEngine, readPolicy } from './policy/index.ts';
import { Compliance } from './posture/compliance.ts';
import { Postures } from './posture/index.ts';
import { ReceivedReceipts } from './proof/cut-receipts.ts';
import { noteControl, readRelayList } from './relays/relay-list.ts';
import { openRevocationLog } from './revocation/index.ts';
import { SequenceSource, type Services } from './services.ts';
import { LiveRisk, PlaceFinder } from './risk/index.ts';
import { openSignals } from './signals/index.ts';
import type { Settings } from './settings.ts';
import {
  keepMarks,
  openStore,
  raiseCounter,
  recoverFromRestore,
  type Store,
} from './store/index.ts';
import { firstControlPlaneId, readControlPlaneId } from './control-plane-id.ts';
import { openClock } from './time/open-clock.ts';
import { Turns } from './turns.ts';
import { KnownFacts } from './verification/known-facts.ts';
import { VerificationSchedule } from './verification/schedule.ts';
import { Verdicts } from './verification/verdicts.ts';
import { keepCarriers, startTimers } from './verification/timer.ts';
import { randomInt } from 'node:crypto';

export interface ControlPlaneOptions {
  /** The relay's state directory. */
  readonly dir: string;
  readonly settings: Settings;
  /** Of the PostgreSQL server that holds the state; else SQLite in `dir`. */
  readonly storeUrl?: string | null | undefined;
  readonly logger: Logger;
}

/** A running control plane. */
export interface ControlPlane {
  readonly services: Services;
  /** Port of `/livez`, `/readyz`, `/metrics`; null when they are not served. */
  readonly healthPort: number | null;
  /** Resolves once it was removed from the deployment: it stops by itself then, and others take its tunnels over. */
  readonly removed: Promise<void>;
  /**
   * Resolves once the store was seen to have been restored, and all counters are above what was told before: what this
   * process remembers holds no longer, so it is to end at once and begin anew.
   */
  readonly wentBack: Promise<void>;
  /** Closes channels as draining, writes down what is only in memory, and lets go of the store. Idempotent. */
  stop(): Promise<void>;
}

/** The unix socket on which the control plane ends TLS. */
export function controlSocketPath(dir: string): string {
  return join(dir, 'run', 'control.sock');
}

/** Starts everything. Throws ERR_CONFIG_NOT_FOUND where no relay was made, ERR_CONFIG_LOCKED while another runs. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  const { dir, logger } = options;
  refuseLongPath(controlSocketPath(dir));
  await openStateDir(dir);
  const store = await openStore({
    directory: join(dir, 'control-plane'),
    url: options.storeUrl,
    isPatient: true,
    logger,
  });
  const undo: (() => Promise<void>)[] = [() => store.close()];
  try {
    const services = await createServices(options, store);
    const { audit } = services;
    const registeredAtMs = await registerSelf(services);
    const certificate = await ServerCertificate.open(services, join(dir, 'control-plane'));
    const upgrades = new Upgrades(services);
    const signals = await openSignals(services, join(dir, 'control-plane'));
    undo.push(() => signals.stop());
    const { tls, url } = options.settings;
    const pages = tls ? await PageCertificate.open(tls, hostOf(url), logger) : null;
    undo.push(() => Promise.resolve(pages?.stop()));
    const listener = await startSecureListener({
      socketPath: controlSocketPath(dir),
      keyPem: certificate.keyPem,
      certificatePem: certificate.certificatePem,
      pages: pages?.pair ?? null,
      authorities: authoritiesOf(services),
      logger,
      onControl: (...upgrade) => void upgrades.handle(...upgrade),
      onEnrolment: (address, request, response) => {
        void answerEnrolment(services, address, request, response);
      },
      onBrowser: (...web) => signals.answer(...web) || answerWeb(services, ...web),
      onRefused: (reason, address) => {
        logger.info('control_refused', { reason, address });
        void services.refusals.record(address, {
          actor: `address:${address}`,
          action: 'channel.open',
          subject: address,
          details: { code: 'ERR_IDENTITY_UNAUTHENTICATED', reason, address },
        });
      },
    });
    undo.push(() => listener.stop());
    services.onRelaysChanged = () => {
      certificate.check();
    };
    services.onBundleChanged = () => {
      listener.useAuthorities(authoritiesOf(services));
    };
    certificate.onRenewed((keyPem, pem) => {
      listener.useCertificate(keyPem, pem);
    });
    pages?.onReplaced((pair) => {
      listener.usePageCertificate(pair);
    });
    await noteControl(services);
    const socketPath = join(dir, 'admin.sock');
    const admin = await startAdminSocket({
      socketPath,
      run: (command, args, actor) => runCommand(services, command, args, actor),
      logger,
    });
    undo.push(() => admin.stop());
    const { adminListen } = options.settings;
    let isReady = true;
    const health =
      adminListen &&
      (await startHealthServer({
        ...adminListen,
        isReady: () => isReady && services.peers.relays.size > 0,
        metrics: () => healthMetrics(services),
      }));
    if (health) undo.push(() => health.stop());
    const timers = startTimers(services, registeredAtMs);
    store.onAvailable(() => {
      const nowMs = services.clock.nowMs(); // nothing was verified meanwhile, and may not wait its turn
      for (const { id } of services.tunnels.all()) services.schedule.hasten(id, nowMs);
    });
    const stopFollowing = followOthers(services);
    const stopHolding = holdGreetings(services);
    await audit.append({
      actor: 'system',
      action: 'relay.start',
      subject: 'control-plane',
      outcome: 'ok',
    });
    services.logger.info('control_plane_started', { tunnels: services.tunnels.size });

    let stopping: Promise<void> | undefined;
    const stop = async () => {
      isReady = false;
      stopHolding();
      pages?.stop();
      await certificate.stop();
      await timers.stop();
      await signals.stop();
      await services.risk.stop().catch(() => undefined); // the store is away: it learns that again
      await stopFollowing();
      for (const peer of services.peers.all()) peer.close(new ZtnaError('ERR_RELAY_DRAINING'));
      await Promise.all([admin.stop(), health?.stop()]);
      upgrades.stop();
      await listener.stop();
      await services.compliance.stop();
      try {
        await keepCarriers(services);
        await leave(services);
        await audit.append({
          actor: 'system',
          action: 'relay.stop',
          subject: 'control-plane',
          outcome: 'ok',
        });
        await audit.checkpoint();
        await services.keepMarks();
      } catch (error) {
        logger.warn('stop_not_recorded', { code: toZtnaError(error).code }); // the store is away
      }
      await store.close();
    };
    const stopOnce = () => (stopping ??= stop());
    const removed = new Promise<void>((resolve) => {
      services.onRemoved = () => {
        services.onRemoved = () => undefined;
        logger.error('control_plane_removed');
        // Not in the turn of whoever noticed: stopping waits for what runs.
        setImmediate(() => void stopOnce().then(resolve, () => undefined));
      };
    });
    const wentBack = whenWentBack(services, join(dir, 'control-plane'));
    return { services, healthPort: health?.port ?? null, removed, wentBack, stop: stopOnce };
  } catch (error) {
    for (const step of undo.reverse()) await step().catch(() => undefined);
    throw error;
  }
}

async function createServices(options: ControlPlaneOptions, store: Store): Promise<Services> {
  const { dir, settings, logger } = options;
  const directory = join(dir, 'control-plane');
  await mkdir(join(dir, 'run'), { recursive: true, mode: 0o700 });
  await chmod(join(dir, 'run'), 0o700);
  await rm(join(dir, 'admin.sock'), { force: true });
  const authority = await loadAuthority(directory);
  const selfId = await readControlPlaneId(directory);
  await refuseOtherUrl(store, selfId, settings.url);
  const regression = await recoverFromRestore(store, directory);
  const { clock, learn: learnClock } = await openClock(store);
  const audit = createAuditLog({ store, key: authority.auditKey, writer: selfId, clock });
  const revocations = await openRevocationLog(store, clock);
  const head = await revocations.head(store.db);
  const tunnels = new TunnelIndex();
  const peers = new Peers();
  const feed = new LogFeed({
    store,
    revocations,
    peers,
    clock,
    grantKey: authority.grantKey,
    head,
    onRegression: () => {
      services.onWentBack();
    },
  });
  revocations.onAppend(() => {
    void feed.wake();
  });
  const extraChecks = settings.posture.checks.map(({ id }) => id);
  const policy = new PolicyEngine({ extraChecks });
  const active = await readPolicy(store.db);
  if (active) policy.activate(await checkPolicies(active.files, { extraChecks }), active.version);
  const fencing = await store.write((tx) => raiseCounter(tx, 'fencing'));
  const noteMarks = () => keepMarks(store, directory);
  await noteMarks();
  if (regression) {
    logger.warn('store_restored', { reason: regression, incarnation: head.incarnation, fencing });
    await audit.append({
      actor: 'system',
      action: 'store.restore',
      subject: 'control-plane',
      outcome: 'ok',
      details: { reason: regression, incarnation: head.incarnation, fencing },
    });
  }
  const { limits } = settings;
  const schedule = new VerificationSchedule(() => randomInt(1_000_000) / 1_000_000);
  const risk = new LiveRisk({
    store,
    places: await PlaceFinder.open(settings.geo ?? { city: null, asn: null }, logger),
    clock,
    logger,
    hasSignals: (settings.signals?.receive.length ?? 0) > 0,
    onAlert: (user) => {
      for (const { id } of tunnels.about('user', user)) schedule.hasten(id, clock.nowMs());
    },
  });
  const sealer = await openSealer(directory);
  const services: Services = {
    store,
    clock,
    learnClock,
    audit,
    refusals: new Refusals({ audit, clock, logger }),
    authority,
    sealer,
    providers: new ProviderBook(store, sealer),
    bundle: await ensureBundle(store, authority, clock),
    relayList: await readRelayList({ authority }, store.db),
    onRelaysChanged: () => undefined,
    onBundleChanged: () => undefined,
    onRemoved: () => undefined,
    onWentBack: () => undefined,
    policy,
    revocations,
    signInThrottle: new SignInThrottle(clock),
    grantThrottle: new Throttle({ burst: 60, perMinute: limits.grantsPerMinute }),
    questionThrottle: new Throttle({ burst: 30, perMinute: limits.questionsPerMinute }),
    requestThrottle: new Throttle({ burst: 200, perMinute: limits.requestsPerMinute }),
    resumeThrottle: new Throttle({ burst: 256, perMinute: limits.resumesPerMinute }),
    reportThrottle: new Throttle({ burst: 4_096, perMinute: 600 }),
    otpThrottle: new Throttle({ burst: 5, perMinute: 3 }),
    takeUps: new TakeUps(),
    greetings: new Turns({
      atOnce: limits.greetingsAtOnce,
      waiting: limits.greetingsWaiting,
      waitMs: greetingWaitMs,
    }),
    pageThrottle: new Throttle(pageRequests),
    enrolmentThrottle: new Throttle({ burst: 120, perMinute: limits.enrolmentsPerMinute }),
    settings,
    self: { id: selfId },
    tunnels,
    dataPlaneCounts: null,
    peers,
    absences: new Absences(clock.nowMs()),
    risk,
    receipts: new ReceivedReceipts(),
    postures: new Postures({ store, maxAgeMs: settings.posture.maxAgeMs }),
    compliance: new Compliance(),
    feed,
    schedule,
    knownFacts: new KnownFacts(),
    verdicts: new Verdicts(),
    sequence: new SequenceSource(fencing),
    logger,
    keepMarks: noteMarks,
  };
  return services;
}

/** The name or address in a URL, an IPv6 address without its brackets. */
function hostOf(url: string): string {
  return new URL(url).hostname.replace(/^\[|\]$/g, '');
}

/** Whose certificates open a channel here: those that any control plane has issued. */
function authoritiesOf({ bundle, authority }: Services): readonly string[] {
  const pinned = { rootId: authority.rootId, minVersion: 0 };
  return verifyBundle(bundle.statement, pinned, 0).authorities;
}

/** Codes, certificates and connectors name the URL that the relay was made for. */
async function refuseOtherUrl(store: Store, selfId: string, url: string): Promise<void> {
  const relay = await store.db
    .selectFrom('relays')
    .select('url')
    .where((eb) =>
      selfId === firstControlPlaneId ? eb('name', '=', 'local') : eb('id', '=', selfId as RelayId),
    )
    .executeTakeFirst();
  if (!relay || relay.url === url) return;
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: `relay.yaml says url: ${url}, but this relay was made for ${relay.url}`,
    hint: `write url: ${relay.url}, or make another relay for the new address`,
  });
}

/** The longest path that every system takes for a unix socket. */
const maxSocketPathBytes = 100;

function refuseLongPath(path: string): void {
  if (Buffer.byteLength(path) <= maxSocketPathBytes) return;
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${path} is too long for a socket`,
    hint: 'choose a shorter --dir',
  });
}
