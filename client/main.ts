#!/usr/bin/env node
import { keepCompiledCode } from '../protocol/host/compile-cache.ts';

keepCompiledCode();
const { runZtna } = await import('./cli.ts');
await runZtna(process.argv.slice(2));
