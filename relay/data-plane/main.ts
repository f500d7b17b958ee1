import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { ZtnaError } from '../../protocol/index.ts';
import {
  certificateLife,
  KnownRelays,
  loadIdentity,
  renewCertificate,
  saveIdentity,
  softwareVersion,
  type Logger,
} from '../../protocol/host/index.ts';
import { runChild, type ChildSettings, type RunningChild } from '../child.ts';
import { startHealthServer, type HealthServer } from '../health-server.ts';
import { controlSocketOf, DataPlane } from './data-plane.ts';
import { dataPlaneMetrics } from './health.ts';

const renewalCheckMs = 60_000;

/** The data plane's process: holds its own identity and nothing of the control plane's. */
async function start(settings: ChildSettings, logger: Logger): Promise<RunningChild> {
  const dir = join(settings.dir, 'data-plane');
  const identity = await loadIdentity(dir);
  if (identity?.role !== 'data-plane') {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
      message: `there is no data plane in ${dir}`,
      hint: `make a relay first: ztna-relay init --dir ${settings.dir} --url https://HOST:PORT`,
    });
  }
  const current: { plane?: DataPlane } = {};
  const known = new KnownRelays({
    dir,
    bundle: () => (current.plane?.identity ?? identity).bundle,
    logger,
  });
  await known.load();
  const plane = new DataPlane({
    identity,
    listen: settings.listen,
    controlSocket: settings.isDataPlaneAlone ? undefined : controlSocketOf(settings.dir),
    known,
    logger,
    software: softwareVersion(),
    save: (newer) => saveIdentity(dir, newer),
  });
  current.plane = plane;
  await plane.start();
  const renewal = setInterval(() => void renewWhenDue(plane, known, logger), renewalCheckMs);
  const health = await serveHealth(settings, plane);
  await plane.ready;
  return {
    port: plane.port,
    counts: () => plane.counts,
    drain: () => plane.drain(settings.drainMs),
    stop: async () => {
      clearInterval(renewal);
      await Promise.all([plane.stop(), health?.stop()]);
      await known.saved();
    },
  };
}

/** Probes and metrics of a data plane alone; a control plane beside it serves them with its own. */
async function serveHealth(
  { adminListen, isDataPlaneAlone }: ChildSettings,
  plane: DataPlane,
): Promise<HealthServer | undefined> {
  if (!isDataPlaneAlone || !adminListen) return undefined;
  return startHealthServer({
    ...adminListen,
    isReady: () => plane.isServing,
    metrics: () => Promise.resolve(dataPlaneMetrics(plane.counts)),
  });
}

async function renewWhenDue(plane: DataPlane, known: KnownRelays, logger: Logger): Promise<void> {
  const { identity } = plane;
  if (Date.now() < certificateLife(new X509Certificate(identity.certificatePem)).renewAtMs) return;
  try {
    plane.useIdentity(
      await renewCertificate(
        identity,
        known.relays.map(({ url }) => url),
      ),
    );
    logger.info('certificate_renewed');
  } catch (error) {
    logger.warn('certificate_not_renewed', { message: String(error) });
  }
}

await runChild('ztna-data-plane', start);
