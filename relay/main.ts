import { runCommandLine } from '../protocol/host/index.ts';
import { buildRelayCommands } from './cli/tree.ts';

await runCommandLine({
  program: 'ztna-relay',
  build: buildRelayCommands,
  argv: process.argv.slice(2),
});
