import type { Logger } from '../../protocol/host/index.ts';
import { runChild, type ChildSettings, type RunningChild } from '../child.ts';
import { readRelayConfig } from '../config.ts';
import { controlPlaneRemoved } from './live/ownership.ts';
import { storeWentBack } from './live/went-back.ts';
import { startControlPlane } from './service.ts';
import { defaultLimits } from './settings.ts';

/** The control plane's process. */
async function start(settings: ChildSettings, logger: Logger): Promise<RunningChild> {
  const config = await readRelayConfig(settings.dir);
  const { url, enrolmentMode, maxDevicesPerUser, session, verification, posture } = config;
  const plane = await startControlPlane({
    dir: settings.dir,
    settings: {
      url,
      enrolmentMode,
      maxDevicesPerUser,
      session,
      verification,
      posture,
      apps: config.apps,
      geo: config.risk.geo,
      adminListen: settings.adminListen,
      limits: defaultLimits,
      signals: config.signals,
      tls: config.tls,
      passkeyDomain: config.passkeyDomain,
    },
    storeUrl: config.storeUrl,
    logger,
  });
  if (plane.healthPort !== null) logger.info('admin_listening', { port: plane.healthPort });
  return {
    stop: () => plane.stop(),
    over: Promise.race([
      plane.removed.then(controlPlaneRemoved),
      plane.wentBack.then(storeWentBack), // and is started again
    ]),
    takeCounts: (counts) => {
      plane.services.dataPlaneCounts = counts;
    },
  };
}

await runChild('ztna-control-plane', start);
