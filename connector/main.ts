#!/usr/bin/env node
import { runCommandLine, warnUnknownEnvironment } from '../protocol/host/index.ts';
import { buildCommandLine, connectorEnvironment } from './cli.ts';

warnUnknownEnvironment('ztna-connector', Object.keys(connectorEnvironment));
await runCommandLine({
  program: 'ztna-connector',
  build: buildCommandLine,
  argv: process.argv.slice(2),
});
