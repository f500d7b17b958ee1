/**
 * `npm test`: runs every test file under AVA and closes with the line `N passed, N failed[, N skipped]`.
 * Arguments are handed to AVA, so `npm test -- test/protocol/frame.test.ts` runs one file.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { keptKeysVariable, makeRunDirectory } from './run-directory.ts';
import { sharedVariable, sharePostgres } from './shared-postgresql.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const directory = makeRunDirectory();
process.env['TMPDIR'] = directory;
const keys = join(directory, 'rsa-keys');
mkdirSync(keys, { mode: 0o700 });
const postgres = await sharePostgres();
const child = spawn(
  process.execPath,
  [
    'node_modules/ava/entrypoints/cli.mjs',
    '--config',
    'test/support/ava.config.mjs',
    '--tap',
    ...process.argv.slice(2),
  ],
  {
    cwd: top,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      NODE_NO_WARNINGS: '1',
      // Every file has a worker of its own, which compiles all that it loads; programs that it starts do so too.
      NODE_COMPILE_CACHE: `${top}node_modules/.cache/compiled-for-tests`,
      [sharedVariable]: postgres.address,
      [keptKeysVariable]: keys,
    },
  },
);
// What is cut short leaves nothing behind either: the run directory may be in memory.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));

/** AVA gives up after two minutes in which no test ended; where it does not end by that either, it is ended. */
const silentForMs = 240_000;
const watchdog = setTimeout(() => {
  console.log(`✗ no test has ended for ${silentForMs / 60_000} minutes`);
  child.kill('SIGKILL');
}, silentForMs);

let passed = 0;
let failed = 0;
let skipped = 0;
let isShowing = false;
for await (const line of createInterface({ input: child.stdout })) {
  watchdog.refresh();
  const result = /^(not )?ok \d+ - (.*)$/.exec(line);
  if (result) {
    const title = result[2] ?? '';
    isShowing = result[1] !== undefined;
    if (/# (SKIP|TODO)/.test(title)) skipped++;
    else if (isShowing) failed++;
    else passed++;
    console.log(`${isShowing ? '✗' : '✓'} ${title}`);
  } else if (/^#\s{3}/.test(line)) {
    console.log(`  ${line.slice(1).trim()}`); // logged by a test: the reason why a part was left out
  } else if (isShowing && !/^(\d+\.\.\d+|#.*|TAP version.*)?$/.test(line)) {
    console.log(line);
  }
}
const code = await new Promise<number | null>((resolve) => {
  if (child.exitCode !== null) resolve(child.exitCode);
  else
    child.once('exit', (exitCode) => {
      resolve(exitCode);
    });
});
clearTimeout(watchdog);
await postgres.stop();
rmSync(directory, { recursive: true, force: true });
// A crash outside any test leaves no `not ok` line.
if (code !== 0 && failed === 0) failed = 1;
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
