#!/usr/bin/env node
import { runCommandLine, warnUnknownEnvironment } from '../protocol/host/index.ts';
import { buildRelayCommands, relayEnvironment } from './cli/tree.ts';

warnUnknownEnvironment('ztna-relay', Object.keys(relayEnvironment));

await runCommandLine({
  program: 'ztna-relay',
  build: buildRelayCommands,
  argv: process.argv.slice(2),
});
