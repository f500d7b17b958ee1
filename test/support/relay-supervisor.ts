import { fileURLToPath } from 'node:url';
import { createLogger } from '../../protocol/host/index.ts';
import { runSupervisor } from '../../relay/supervisor.ts';

/** A supervisor in a process of its own, over children that only take notes: `relay-supervisor.ts DIR HOST`. */
const [dir = '', host = ''] = process.argv.slice(2);
const stopping = new AbortController();
process.on('SIGTERM', () => {
  stopping.abort();
});
await runSupervisor({
  dir,
  listen: { host, port: 0 },
  adminListen: null,
  drainMs: 2_000,
  logger: createLogger({ program: 'test' }),
  signal: stopping.signal,
  programs: {
    'control-plane': fileURLToPath(new URL('./relay-child.ts', import.meta.url)),
    'data-plane': fileURLToPath(new URL('./relay-child-data.ts', import.meta.url)),
  },
});
