#!/usr/bin/env node
import { runCommandLine, warnUnknownEnvironment } from '../protocol/host/index.ts';
import { buildCommandLine, laterCommandOf } from './cli.ts';
import { environment } from './environment.ts';

const argv = process.argv.slice(2);
warnUnknownEnvironment('ztna', Object.keys(environment));
const later = laterCommandOf(argv);
await runCommandLine({
  program: 'ztna',
  argv: later === undefined ? argv : [later],
  build: buildCommandLine,
});
