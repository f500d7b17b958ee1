import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { environment } from '../../../client/environment.ts';
import { connectorEnvironment } from '../../../connector/cli.ts';
import { environmentNames } from '../../../protocol/host/environment.ts';
import { parseDurationMs } from '../../../protocol/host/input.ts';
import { relayEnvironment } from '../../../relay/cli/tree.ts';
import { launchers, runProgram } from '../../support/program.ts';

const fixture = fileURLToPath(new URL('command-line-fixture.ts', import.meta.url));

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the fixture as a process; `kill` is sent once it has printed `ready`. */
async function run(
  args: readonly string[],
  options: { stdin?: string; kill?: NodeJS.Signals; env?: Record<string, string> } = {},
): Promise<Outcome> {
  const env = Object.entries(process.env).filter(([name]) => !name.startsWith('ZTNA_'));
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', fixture, ...args],
    {
      env: { ...Object.fromEntries(env), ...options.env },
    },
  );
  let stdout = '';
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  child.stdout.on('data', (chunk: Buffer) => {
    const wasReady = stdout.includes('ready');
    stdout += chunk.toString();
    if (options.kill && !wasReady && stdout.includes('ready')) child.kill(options.kill);
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.stdin ?? '');
  const code = await new Promise<number | null>((resolve) => child.once('close', resolve));
  return { code, stdout, stderr };
}

test('runCommandLine - hands arguments over as they were typed', async (t) => {
  const { code, stdout } = await run([
    'show',
    '0123',
    '--group',
    'a',
    '--group',
    '7',
    '--',
    'x',
    '--y',
  ]);
  t.is(code, 0);
  t.deepEqual(JSON.parse(stdout), { name: '0123', group: ['a', '7'], rest: ['x', '--y'] });
});

test('runCommandLine - an array option takes one value, not the words behind it', async (t) => {
  const { stdout } = await run(['show', '--group', 'a', 'wiki']);
  t.deepEqual(JSON.parse(stdout), { name: 'wiki', group: ['a'] });
});

test('runCommandLine - hands a bare dash over, as an argument and as the value of an option', async (t) => {
  const { stdout } = await run(['show', '-', '--group', '-', '--', '-']);
  t.deepEqual(JSON.parse(stdout), { name: '-', group: ['-'], rest: ['-'] });
});

test('runCommandLine - an unknown flag ends with 2 and runs nothing', async (t) => {
  const { code, stdout, stderr } = await run(['show', 'wiki', '--bogus']);
  t.is(code, 2);
  t.is(stdout, '');
  t.regex(stderr, /bogus.*\[ERR_CONFIG_USAGE\]\nfix: see: fixture show --help\n$/s);
});

test('runCommandLine - names the nearest command', async (t) => {
  const { code, stderr } = await run(['shwo']);
  t.is(code, 2);
  t.regex(stderr, /Did you mean show\?/);
});

test('runCommandLine - points to help that exists', async (t) => {
  for (const [args, hint] of [
    [['nonsense'], 'see: fixture --help'],
    [['group', 'lits'], 'see: fixture group --help'],
    [['group', 'list', 'more'], 'see: fixture group list --help'],
    [['group'], 'see: fixture group --help'],
  ] as const) {
    const { code, stderr } = await run(args);
    t.is(code, 2);
    t.regex(stderr, new RegExp(`\\nfix: ${hint}\\n$`), args.join(' '));
    t.regex(stderr, /^error: /);
  }
});

test('printError - says what to do after a code that a peer told without a hint', async (t) => {
  const { code, stderr } = await run(['revoked']);
  t.is(code, 7);
  t.regex(stderr, /ERR_IDENTITY_REVOKED\]\nfix: make a new code on the relay/);
});

test('runCommandLine - prints an error with its code, fix and ref, escaped', async (t) => {
  const { code, stderr } = await run(['deny']);
  t.is(code, 6);
  t.is(
    stderr,
    'denied: disk encryption is off\\u001b[2J [ERR_POSTURE_UNHEALTHY]\n' +
      'fix: turn on LUKS, then run: ztna posture\nref: dec_1\n',
  );
});

test('runCommandLine - prints one JSON object with --json', async (t) => {
  const { code, stderr } = await run(['deny', '--json']);
  t.is(code, 6);
  const { error } = JSON.parse(stderr) as { error: Record<string, unknown> };
  t.like(error, { code: 'ERR_POSTURE_UNHEALTHY', ref: 'dec_1' });
  t.regex(String(error['hint']), /LUKS/);
});

test('runCommandLine - tells nothing of an unknown error but its kind', async (t) => {
  const { code, stderr } = await run(['fail']);
  t.is(code, 1);
  t.regex(stderr, /\[ERR_INTERNAL\]/);
  t.notRegex(stderr, /hunter2/);
});

test('runCommandLine - a command of the future ends with 2', async (t) => {
  const { code, stderr } = await run(['later']);
  t.is(code, 2);
  t.regex(stderr, /not available yet: later \[ERR_CONFIG_NOT_AVAILABLE\]/);
});

test('runCommandLine - prints help and version on stdout', async (t) => {
  const help = await run(['--help']);
  t.is(help.code, 0);
  t.regex(help.stdout, /fixture show <name>/);
  const version = await run(['--version']);
  t.regex(version.stdout, /^\d+\.\d+\.\d+\n$/);
});

test('runCommandLine - Ctrl-C ends with 130 and SIGTERM with 0, both in good order', async (t) => {
  for (const [kill, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 0],
  ] as const) {
    const outcome = await run(['wait'], { kill });
    t.is(outcome.code, code);
    t.regex(outcome.stdout, /ended in good order/);
    t.is(outcome.stderr, '');
  }
});

test('runCommandLine - Ctrl-C ends a command that does not watch for it', async (t) => {
  t.is((await run(['hang'], { kill: 'SIGINT' })).code, 130);
});

test('askHidden - does not ask when there is no terminal', async (t) => {
  const { code, stderr } = await run(['ask'], { stdin: 'secret\n' });
  t.is(code, 2);
  t.regex(stderr, /no terminal/);
});

test('readSecretArgument - reads stdin, a file or the argument, without the line end', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-'));
  t.teardown(() => rm(dir, { recursive: true }));
  const path = join(dir, 'code');
  await writeFile(path, 'from a file\r\n');
  t.is((await run(['secret', '-'], { stdin: 'from stdin\n' })).stdout, '"from stdin"\n');
  t.is((await run(['secret', `file:${path}`])).stdout, '"from a file"\n');
  t.is((await run(['secret', 'ztna1_abc'])).stdout, '"ztna1_abc"\n');
  t.is((await run(['secret', '-'])).code, 2);
  t.is((await run(['secret', '-'], { stdin: 'x'.repeat(10_000) })).code, 2);
  t.is((await run(['secret', `file:${path}x`])).code, 2);
});

/** What the three programs read. */
const siblings = [environment, connectorEnvironment, relayEnvironment].flatMap(Object.keys);

test('warnUnknownEnvironment - warns once of names that mean nothing', async (t) => {
  const known = ['ZTNA_FIXTURE', 'ZTNA_NO_INPUT', ...siblings];
  const env = Object.fromEntries([...known, 'ZTNA_PROT', 'ZTNA_ABC'].map((name) => [name, '1']));
  const { stderr } = await run(['show', 'x'], { env });
  t.is(stderr, 'fixture: warning: ignored from the environment: ZTNA_ABC, ZTNA_PROT\n');
  t.true('ZTNA_NO_INPUT' in environmentNames);
});

test('parseDurationMs - reads every unit and refuses the rest', (t) => {
  t.deepEqual(
    ['250ms', '20s', '5m', '24h', '400d'].map(parseDurationMs),
    [250, 20_000, 300_000, 86_400_000, 34_560_000_000],
  );
  for (const text of ['', '5', 's', '-5s', '1.5h', '5 s', '5S', '1e3s', '99999999d']) {
    t.throws(() => parseDurationMs(text), { code: 'ERR_CONFIG_INVALID' });
  }
});

const withoutValue: readonly (readonly [program: string, ...args: string[]])[] = [
  [launchers.ztna, 'connect', 'wiki', '--listen'],
  [launchers.ztna, 'mfa', 'remove', '--otp'],
  [launchers.connector, 'run', '--dir'],
  [launchers.connector, 'run', '--app'],
  [launchers.relay, 'user', 'list', '--dir'],
  [launchers.relay, 'user', 'add', 'alice', '--group'],
];
for (const [program, ...args] of withoutValue) {
  const typed = [basename(program), ...args].join(' ');
  test(`${typed} - is a usage error, since the option has no value`, async (t) => {
    const { code, stderr } = await runProgram(program, args);
    t.is(code, 2);
    t.regex(stderr, /\[ERR_CONFIG_USAGE\]\nfix: see: /);
  });
}

const withDash: readonly (readonly [program: string, ...args: string[]])[] = [
  [launchers.ztna, 'enroll', '-', '--password-stdin'],
  [launchers.ztna, 'enroll', '--password-stdin', '-'],
  [launchers.connector, 'enroll', '-', '--dir', 'DIR'],
  [launchers.connector, 'enroll', '--dir', 'DIR', '-'],
  [launchers.connector, 'run', '--dir', 'DIR', '--enroll', '-', '--app', 'a=tcp://127.0.0.1:1'],
];
for (const [program, ...args] of withDash) {
  const typed = [basename(program), ...args].join(' ');
  test(`${typed} - reads the code from standard input`, async (t) => {
    const home = await mkdtemp(join(tmpdir(), 'ztna-dash-'));
    t.teardown(() => rm(home, { recursive: true, force: true }));
    const placed = args.map((word) => (word === 'DIR' ? join(home, 'state') : word));
    const { stderr } = await runProgram(program, placed, {
      env: { ZTNA_HOME: join(home, 'home') },
      input: 'ztna1_cut-off\na password\n',
    });
    t.regex(stderr, /ERR_IDENTITY_CODE_REFUSED/);
  });
}
