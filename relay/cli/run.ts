import { createLogger, logLevel, shutdownSignal } from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';
import type { ListenAddress } from '../config.ts';
import { dirOf, maybe, type Arguments, type Leaf } from './command.ts';

async function addressOf(
  argv: Arguments,
  name: string,
  flag: string,
): Promise<ListenAddress | undefined> {
  const { parseListenAddress } = await import('../config.ts');
  const text = argv[name];
  if (typeof text !== 'string') return undefined;
  const address = parseListenAddress(text);
  if (address) return address;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: `--${flag} ${text} is no address`,
    hint: 'write ADDR:PORT',
  });
}

/** `ztna-relay run`: control plane and data plane as two processes, kept running until a signal. */
export const runLeaf: Leaf = {
  usage: 'run',
  describe: 'run the relay: control plane and data plane, or a data plane alone',
  options: {
    listen: { type: 'string', describe: 'ADDR:PORT to accept agents and connectors on' },
    'admin-listen': { type: 'string', describe: '127.0.0.1:PORT for probes and metrics' },
    'data-plane': { type: 'boolean', describe: 'run a data plane alone, without a control plane' },
    enroll: {
      type: 'string',
      describe: 'with --data-plane, the first time: - or file:PATH with the code of invite relay',
    },
  },
  run: async (argv) => {
    const isDataPlaneAlone = argv['dataPlane'] === true;
    if (argv['enroll'] !== undefined && !isDataPlaneAlone) {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: '--enroll goes with --data-plane',
        hint: 'a relay with a control plane is made with: ztna-relay init',
      });
    }
    const { isLoopback, readRelayConfig } = await import('../config.ts');
    const { runSupervisor } = await import('../supervisor.ts');
    const dir = dirOf(argv);
    if (isDataPlaneAlone) {
      const { prepareDataPlane } = await import('./prepare-data-plane.ts');
      await prepareDataPlane(dir, maybe(argv, 'enroll').enroll);
    }
    const config = await readRelayConfig(dir);
    const adminListen =
      (await addressOf(argv, 'adminListen', 'admin-listen')) ?? config.adminListen;
    if (adminListen && !isLoopback(adminListen.host)) {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: '--admin-listen takes a loopback address',
      });
    }
    await runSupervisor({
      dir,
      listen: (await addressOf(argv, 'listen', 'listen')) ?? config.listen,
      adminListen,
      drainMs: config.drainMs,
      isDataPlaneAlone,
      logger: createLogger({ program: 'ztna-relay', level: logLevel() }),
      signal: shutdownSignal(),
    });
  },
};
