import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import { Rig, staffPolicy } from '../control-plane/service/rig.ts';
import { launchers, runProgram, type Finished } from '../../support/program.ts';

interface Context {
  rig: Rig;
  work: string;
  run: (...args: string[]) => Promise<Finished>;
}
const test = anyTest as TestFn<Context>;

test.before('a running control plane', async (t) => {
  const rig = await Rig.start();
  t.context.rig = rig;
  t.context.work = await mkdtemp(join(tmpdir(), 'ztna-cli-'));
  t.context.run = (...args) => runProgram(launchers.relay, [...args, '--dir', rig.dir]);
});

test.after.always('stop', async (t) => {
  await t.context.rig.stop();
  await rm(t.context.work, { recursive: true, force: true });
});

const lines = (text: string) =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

test('no relay running - every administration command says so with exit 3', async (t) => {
  const dir = join(t.context.work, 'nothing');
  const { code, stdout, stderr } = await runProgram(launchers.relay, [
    'user',
    'list',
    '--dir',
    dir,
  ]);
  t.is(code, 3);
  t.is(stdout, '');
  t.regex(stderr, /ERR_RELAY_UNREACHABLE/);
  t.regex(stderr, /fix: start it: ztna-relay run/);
});

test('init - makes private files, and refuses to make them twice', async (t) => {
  const dir = join(t.context.work, 'fresh');
  const args = ['init', '--dir', dir, '--url', 'https://relay.example.com:8443'];
  t.is((await runProgram(launchers.relay, args)).code, 0);
  t.is((await stat(dir)).mode & 0o777, 0o700);
  for (const name of await readdir(join(dir, 'control-plane'))) {
    const { mode } = await stat(join(dir, 'control-plane', name));
    if (name.endsWith('.key') || name.includes('sqlite')) t.is(mode & 0o077, 0, name);
  }
  const again = await runProgram(launchers.relay, args);
  t.is(again.code, 2);
  t.regex(again.stderr, /ERR_CONFIG_EXISTS/);
});

test('init --join - a store that cannot be reached says what to check, and leaves nothing in the way of the next try', async (t) => {
  const invited = await t.context.run('invite', 'relay', 'far', '--url', 'https://far.example.com');
  const file = join(t.context.work, 'far.code');
  await writeFile(file, invited.stdout);
  const dir = join(t.context.work, 'joined');
  const store = 'postgres://ztna@127.0.0.1:1/ztna';
  const args = ['init', '--join', `file:${file}`, '--dir', dir, '--store', store];
  for (let attempt = 0; attempt < 2; attempt++) {
    const { code, stderr } = await runProgram(launchers.relay, args);
    t.is(code, 3);
    t.regex(stderr, /the store at 127\.0\.0\.1:1\/ztna cannot be used/);
    t.regex(stderr, /fix: check host and port/);
  }
  t.deepEqual(await readdir(dir), []);
});

test('init - needs a url, and names what is not available yet', async (t) => {
  const dir = join(t.context.work, 'other');
  for (const [extra, code] of [
    [[], 'ERR_CONFIG_USAGE'],
    [['--url', 'http://relay.example.com'], 'ERR_CONFIG_INVALID'],
    [['--join', '-'], 'ERR_CONFIG_USAGE'],
    [['--url', 'https://a', '--store', 'postgres://u@x'], 'ERR_CONFIG_INVALID'],
    [['--url', 'https://a', '--store', 'postgres://u:hidden@127.0.0.1:1/d'], 'ERR_CONFIG_USAGE'],
    [['--join', 'file:code', '--store', 'postgres://u:hidden@127.0.0.1:1/d'], 'ERR_CONFIG_USAGE'],
  ] as const) {
    const { code: exit, stderr } = await runProgram(launchers.relay, [
      'init',
      '--dir',
      dir,
      ...extra,
    ]);
    t.is(exit, 2);
    t.true(stderr.includes(code), stderr);
    t.false(stderr.includes('hidden'), stderr);
  }
});

test('usage - unknown words and flags, and what is not there yet, end with exit 2', async (t) => {
  for (const args of [
    ['user', 'lits'],
    ['user', 'list', '--bogus'],
    ['user'],
    ['nonsense'],
    ['revoke', 'planet', 'x', '--reason', 'y'],
    ['policy', 'diff', 'x'],
    ['provider', 'add', 'idp'],
    ['backup', 'file'],
    ['audit', 'prune'],
    ['audit', 'prune', '--before', 'once'],
    ['group', 'member', 'add', 'g', 'u', '--until', 'tomorrow'],
  ]) {
    const { code, stdout, stderr } = await t.context.run(...args);
    t.is(code, 2, `${args.join(' ')}: ${stderr}`);
    t.is(stdout, '');
  }
  const { stderr } = await t.context.run('backup', 'file', '--json');
  const [answer] = lines(stderr);
  t.is((answer?.['error'] as Record<string, unknown>)['code'], 'ERR_CONFIG_NOT_AVAILABLE');
});

test('invite user - prints the code alone and makes user and group', async (t) => {
  const { code, stdout } = await t.context.run('invite', 'user', 'nina', '--group', 'makers');
  t.is(code, 0);
  t.regex(stdout, /^ztna1_[A-Za-z0-9_-]+\n$/);
  const users = lines((await t.context.run('user', 'list', '--json')).stdout);
  t.deepEqual(users.find((user) => user['name'] === 'nina')?.['groups'], ['makers']);
  const shown = await t.context.run('invite', 'list', '--json');
  t.false(shown.stdout.includes(stdout.trim()));
});

test('invite connector - makes the site with its apps, and refuses an app of another', async (t) => {
  const first = await t.context.run(
    'invite',
    'connector',
    'depot',
    '--app',
    'stock',
    '--app',
    'till',
  );
  t.regex(first.stdout, /^ztna1_[A-Za-z0-9_-]+\n$/);
  const apps = lines((await t.context.run('app', 'list', '--json')).stdout);
  t.is(apps.find((app) => app['name'] === 'till')?.['site'], 'depot');
  const other = await t.context.run('invite', 'connector', 'annex', '--app', 'till');
  t.is(other.code, 2);
  t.regex(other.stderr, /ERR_CONFIG_EXISTS/);
  t.is((await t.context.run('site', 'show', 'annex')).code, 2); // rolled back with it
});

test('user - passwords come from standard input and are nowhere shown', async (t) => {
  const { rig } = t.context;
  const secret = 'a-canary-that-sings-loudly';
  const added = await runProgram(
    launchers.relay,
    ['user', 'add', 'otto', '--password-stdin', '--dir', rig.dir],
    { input: `${secret}\n` },
  );
  t.is(added.code, 0, added.stderr);
  const shown = lines((await t.context.run('user', 'show', 'otto', '--json')).stdout);
  t.is(shown[0]?.['hasPassword'], true);
  const audit = await t.context.run('audit', 'export', '--since', '1h');
  t.false([added.stderr, audit.stdout, ...rig.logLines].join('\n').includes(secret));
  t.is((await t.context.run('user', 'add', 'otto')).code, 2);
  t.is((await t.context.run('user', 'set', 'otto', '--reset-otp')).code, 0);
  t.is((await t.context.run('user', 'add', 'olga', '--reset-otp')).code, 2);
  t.is((await t.context.run('user', 'set', 'otto', '--reset-passkeys')).code, 0);
  t.is((await t.context.run('user', 'add', 'olga', '--reset-passkeys')).code, 2);
  t.is((await t.context.run('user', 'add', 'Otto Upper')).code, 2);
});

test('policy check - needs no relay and names file, line and what is wrong', async (t) => {
  const good = join(t.context.work, 'good');
  const bad = join(t.context.work, 'bad.cedar');
  await rm(good, { recursive: true, force: true });
  const { mkdir } = await import('node:fs/promises');
  await mkdir(good);
  await writeFile(join(good, 'staff.cedar'), staffPolicy['staff.cedar']);
  await writeFile(bad, 'permit (\n  principal in Grop::"x",\n  action,\n  resource\n);\n');
  const dir = ['--dir', join(t.context.work, 'nothing')];
  t.is((await runProgram(launchers.relay, ['policy', 'check', good, ...dir])).code, 0);
  const refused = await runProgram(launchers.relay, ['policy', 'check', bad, ...dir]);
  t.is(refused.code, 2);
  t.regex(refused.stderr, /bad\.cedar:\d+:\d+: /);
  t.regex(refused.stderr, /ERR_POLICY_INVALID/);
});

test('audit - every change names its actor, and the chain verifies', async (t) => {
  await t.context.run('group', 'add', 'auditees');
  const records = lines((await t.context.run('audit', 'tail', '-n', '100', '--json')).stdout);
  const added = records.find(
    (record) => record['action'] === 'group.add' && record['subject'] === 'auditees',
  );
  t.is(added?.['actor'], `uid:${String(process.getuid?.())}`);
  t.is((await t.context.run('audit', 'verify')).code, 0);
  const pruned = await t.context.run('audit', 'prune', '--before', '2020-01-01');
  t.is(pruned.code, 0, pruned.stderr);
  t.regex(pruned.stderr, /^0 records pruned; the log begins with record 1\n$/);
  const csv = await t.context.run('audit', 'export', '--since', '1h', '--format', 'csv');
  t.regex(csv.stdout, /^atMs,actor,action,/);
  const ocsf = await t.context.run('audit', 'export', '--since', '1h', '--format', 'ocsf');
  const event = lines(ocsf.stdout).find(({ message }) =>
    /group\.add auditees: ok$/.test(String(message)),
  );
  t.like(event, { class_uid: 3004, activity_id: 1, entity: { name: 'auditees', type: 'group' } });
});

test('admin socket - is its owner’s alone and refuses what is no command', async (t) => {
  const { rig } = t.context;
  const { mode } = await stat(join(rig.dir, 'admin.sock'));
  t.is(mode & 0o777, 0o600);
  await t.throwsAsync(rig.admin('user.explode'), { code: 'ERR_CONFIG_USAGE' });
  await t.throwsAsync(rig.admin('user.add', { name: 'x', admin: true }), {
    code: 'ERR_CONFIG_USAGE',
  });
  await t.throwsAsync(rig.admin('revoke', { kind: 'device', id: 'dev_', reason: 'x' }), {
    code: 'ERR_CONFIG_NOT_FOUND',
  });
});
