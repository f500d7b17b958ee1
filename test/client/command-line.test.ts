import { chmod, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { laterCommandOf } from '../../client/cli.ts';
import { launchers, runProgram, type Finished } from '../support/program.ts';

async function emptyHome(t: ExecutionContext): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'ztna-client-'));
  t.teardown(() => rm(home, { recursive: true, force: true }));
  return home;
}

async function ztna(
  t: ExecutionContext,
  args: readonly string[],
  env: Record<string, string> = {},
  input = '',
): Promise<Finished> {
  const home = await emptyHome(t);
  return runProgram(launchers.ztna, args, { env: { ZTNA_HOME: home, ...env }, input });
}

const usageErrors: readonly (readonly string[])[] = [
  [],
  ['frob'],
  ['connect'],
  ['connect', '-rf'],
  ['connect', '__proto__'],
  ['connect', '--__proto__.x=1', 'wiki'],
  ['connect', 'wiki', '--bogus'],
  ['connect', '../wiki'],
  ['connect', 'wiki', '--listen'],
  ['connect', 'wiki', '--listen', '99999'],
  ['connect', 'wiki', '--listen', '1', '--listen', '2'],
  ['connect', 'wiki', '--listen', '0.0.0.0:5432'],
  ['connect', 'wiki', '--stdio', '--listen', '5432'],
  ['connect', 'wiki', '--listen', '0', '--remember'],
  ['run', 'wiki'],
  ['why', '-rf'],
  ['mfa', 'frob'],
  ['devices'],
  ['devices', 'revoke', 'no-id'],
  ['status', '--profile', '../other'],
  ['posture', '--profile', '../other'],
  ['enroll', 'no-code', '--password-stdin'],
  ['enroll', 'http://relay.example.com'],
  ['enroll', 'https://relay.example.com/enrol'],
  ['enroll', 'https://user@relay.example.com'],
  ['enroll', 'https://relay.example.com', '--password-stdin'],
  ['enroll', 'https://relay.example.com', '--code-stdin'],
  ['enroll', 'https://relay.example.com'], // no browser, and no terminal to ask on
  ['enroll', 'a-code', '--no-browser'],
  ['login', '--provider', 'corp', '--password-stdin'],
  ['login', '--device-code', '--browser'],
  ['login', '--ticket-stdin'],
  ['login', '--browser'],
];

for (const args of usageErrors) {
  test(`ztna ${JSON.stringify(args)} - is a usage error that says what to do`, async (t) => {
    const { code, stdout, stderr } = await ztna(t, args);
    t.is(code, 2);
    t.is(stdout, '');
    t.regex(stderr, /^[a-z]+: .+ \[ERR_[A-Z_]+\]\nfix: .+/);
  });
}

test('laterCommandOf - knows the commands that are not there yet, wherever options stand', (t) => {
  for (const name of ['open', 'ssh', 'ssh-config', 'proxy', 'agent', 'doctor', 'completion']) {
    t.is(laterCommandOf([name, 'list']), name);
    t.is(laterCommandOf(['--json', '--profile', 'acme', name]), name);
  }
  for (const argv of [
    [],
    ['connect', 'doctor'],
    ['--profile', 'doctor', 'status'],
    ['constructor'],
  ]) {
    t.is(laterCommandOf(argv), undefined);
  }
});

test('ztna ssh - answers that it is not available yet, whatever follows', async (t) => {
  const { code, stdout, stderr } = await ztna(t, ['ssh', 'wiki', '--anything', '--', '-x']);
  t.is(code, 2);
  t.is(stdout, '');
  t.regex(stderr, /not available yet: .*\[ERR_CONFIG_NOT_AVAILABLE\]/);
});

for (const args of [['connect', 'wiki', '--listen', '0.0.0.0:5432', '--listen-anywhere']]) {
  test(`ztna ${args.join(' ')} - is refused as not available yet`, async (t) => {
    const { code, stderr } = await ztna(t, args);
    t.is(code, 2);
    t.regex(stderr, /\[ERR_CONFIG_NOT_AVAILABLE\]/);
  });
}

for (const args of [
  ['status'],
  ['connect', 'wiki'],
  ['run', 'wiki', '--', 'true'],
  ['mfa', 'list'],
  ['login', '--password-stdin'],
]) {
  test(`ztna ${args.join(' ')} - says that this machine is not enrolled`, async (t) => {
    const { code, stdout, stderr } = await ztna(t, args);
    t.is(code, 4);
    t.is(stdout, '');
    t.regex(stderr, /\[ERR_IDENTITY_NOT_ENROLLED\]\nfix: .*ztna enroll/);
  });
}

test('ztna --json - tells an error as one object on standard error', async (t) => {
  const { code, stdout, stderr } = await ztna(t, ['status', '--json']);
  t.is(code, 4);
  t.is(stdout, '');
  const { error } = JSON.parse(stderr) as { error: Record<string, unknown> };
  t.is(error['code'], 'ERR_IDENTITY_NOT_ENROLLED');
  t.deepEqual(Object.keys(error).slice(0, 4), ['code', 'message', 'hint', 'ref']);
});

test('ztna - names the nearest command for one that is misspelt', async (t) => {
  const { stderr } = await ztna(t, ['conect', 'wiki']);
  t.regex(stderr, /connect/);
});

test('ztna --help - lists commands, exit codes and the closed list of environment names', async (t) => {
  const { code, stdout } = await ztna(t, ['--help']);
  t.is(code, 0);
  for (const word of ['enroll', 'connect', 'Exit codes', 'ZTNA_HOME', 'ZTNA_NO_INPUT']) {
    t.true(stdout.includes(word), word);
  }
});

test('ztna - warns once of an environment name that it does not know', async (t) => {
  const { stderr } = await ztna(t, ['status'], { ZTNA_LISTEN: '1', ZTNA_PORT: '2' });
  t.is(stderr.match(/ZTNA_LISTEN/g)?.length, 1);
  t.false(stderr.includes('ZTNA_PORT'));
});

test('ztna enroll - never takes a password without a terminal or --password-stdin', async (t) => {
  const { code, stderr } = await ztna(t, ['enroll', '-'], {}, 'ztna1_code\n');
  t.is(code, 2);
  t.regex(stderr, /--password-stdin/);
});

test('ztna enroll - does not repeat a code that it refuses', async (t) => {
  const canary = 'ztna1_Y2FuYXJ5Y2FuYXJ5';
  const { code, stdout, stderr } = await ztna(
    t,
    ['enroll', '-', '--password-stdin'],
    {},
    `${canary}\npassword-canary\n`,
  );
  t.is(code, 2);
  t.regex(stderr, /ERR_IDENTITY_CODE_REFUSED/);
  t.false((stdout + stderr).includes(canary));
  t.false((stdout + stderr).includes('password-canary'));
});

test('ztna - makes its state directories for its owner alone', async (t) => {
  const home = join(await emptyHome(t), 'deep', 'state');
  await runProgram(launchers.ztna, ['status', '--profile', 'acme'], { env: { ZTNA_HOME: home } });
  for (const dir of [home, join(home, 'acme')]) t.is((await stat(dir)).mode & 0o777, 0o700);
});

test('ztna - refuses a state directory that others may enter', async (t) => {
  const home = await emptyHome(t);
  await chmod(home, 0o755);
  const { code, stderr } = await runProgram(launchers.ztna, ['status'], {
    env: { ZTNA_HOME: home },
  });
  t.is(code, 2);
  t.regex(stderr, /\[ERR_CONFIG_PERMISSIONS\]\nfix: chmod 700/);
});

test('ztna posture - shows the facts of a machine that is not enrolled, and says so', async (t) => {
  const { code, stdout, stderr } = await ztna(t, ['posture']);
  t.is(code, 0);
  for (const fact of ['disk encryption', 'firewall', 'screen lock', 'antivirus', 'secure boot']) {
    t.regex(stdout, new RegExp(`^${fact} +(?:on|off|unknown) +\\S`, 'm'));
  }
  t.regex(stderr, /not enrolled \[ERR_IDENTITY_NOT_ENROLLED\]/);
});

test('ztna posture --json - is one object', async (t) => {
  const { code, stdout, stderr } = await ztna(t, ['posture', '--json']);
  t.is(code, 0);
  t.is(stderr, '');
  const told = JSON.parse(stdout) as Record<string, unknown>;
  t.deepEqual(Object.keys(told), [
    'platform',
    'osVersion',
    'clientVersion',
    'checks',
    'heardAgoMs',
    'needs',
    'error',
  ]);
  t.is(told['needs'], null);
  t.like(told['error'], { code: 'ERR_IDENTITY_NOT_ENROLLED' });
});
