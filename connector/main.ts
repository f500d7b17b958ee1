#!/usr/bin/env node
import { keepCompiledCode } from '../protocol/host/compile-cache.ts';

keepCompiledCode();
const { runZtnaConnector } = await import('./cli.ts');
await runZtnaConnector(process.argv.slice(2));
