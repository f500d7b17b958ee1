#!/usr/bin/env node
import { keepCompiledCode } from '../protocol/host/compile-cache.ts';

keepCompiledCode();
const { runZtnaRelay } = await import('./cli/tree.ts');
await runZtnaRelay(process.argv.slice(2));
