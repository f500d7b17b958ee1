import test, { type ExecutionContext } from 'ava';
import { execFile } from 'node:child_process';
import { stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { saveIdentity } from '../../protocol/host/index.ts';
import { launchers, RunningProgram, runProgram } from '../support/program.ts';
import { FakeRelay } from './fake-relay.ts';
import { temporaryDirectory } from './temporary-directory.ts';
import { TestApp } from './test-app.ts';

const run = promisify(execFile);

/** An enrolled directory and the relay that it was enrolled at. */
async function enrolled(t: ExecutionContext): Promise<{ dir: string; relay: FakeRelay }> {
  const relay = await FakeRelay.start();
  t.teardown(() => relay.stop());
  const dir = await temporaryDirectory(t);
  await saveIdentity(dir, relay.identity());
  return { dir, relay };
}

function start(t: ExecutionContext, dir: string, ...args: string[]): RunningProgram {
  const program = new RunningProgram(launchers.connector, ['run', '--dir', dir, ...args]);
  t.teardown(() => program.stop('SIGKILL'));
  return program;
}

const command = (...args: string[]) => runProgram(launchers.connector, args);

// One after the other: each starts a process or two.
test.serial(
  'ztna-connector run - prints ready, answers status and ends with 0 on SIGTERM',
  async (t) => {
    const { dir, relay } = await enrolled(t);
    const program = start(t, dir, '--app', 'app=tcp://127.0.0.1:5432');
    await program.line(/^ready$/);
    t.deepEqual(program.lines, ['ready']);
    t.is((await command('status', '--dir', dir, '--ready')).code, 0);
    const { stdout } = await command('status', '--dir', dir, '--json');
    const status = JSON.parse(stdout) as Record<string, unknown>;
    t.is(status['state'], 'ready');
    t.is(status['connector'], relay.parties.connector);
    t.is((await stat(join(dir, 'connector.sock'))).mode & 0o777, 0o600);
    t.deepEqual(await program.stop(), { code: 0, signal: null });
    const after = await command('status', '--dir', dir, '--ready', '--json');
    t.is(after.code, 8);
    t.deepEqual(JSON.parse(after.stdout), { state: 'stopped' });
  },
);

test.serial('ztna-connector run - opens no TCP port', async (t) => {
  const { dir } = await enrolled(t);
  const program = start(t, dir, '--app', 'app=tcp://127.0.0.1:5432');
  await program.line(/^ready$/);
  const { stdout } = await run('ss', ['-Hltnp']).catch(() => ({ stdout: undefined }));
  if (stdout === undefined) {
    t.log('ss is not installed here, so nothing was checked');
    t.pass();
    return;
  }
  t.true(stdout.includes(`pid=${process.pid},`), 'the relay of this test is seen');
  t.false(stdout.includes(`pid=${program.child.pid},`));
});

test.serial('ztna-connector run - ends with 130 on SIGINT', async (t) => {
  const { dir } = await enrolled(t);
  const program = start(t, dir);
  await program.line(/^ready$/);
  t.deepEqual(await program.stop('SIGINT'), { code: 130, signal: null });
});

test.serial(
  'ztna-connector run - keeps the identity that is there whatever --enroll says',
  async (t) => {
    const { dir, relay } = await enrolled(t);
    const program = start(t, dir, '--enroll', 'file:/nowhere');
    await program.line(/^ready$/);
    t.is((await relay.heard('hello')).type, 'hello');
  },
);

test.serial('ztna-connector run - closes its tunnels when told to stop', async (t) => {
  const { dir, relay } = await enrolled(t);
  const app = await TestApp.start();
  t.teardown(() => app.stop());
  await writeFile(join(dir, 'connector.yaml'), 'drainFor: 100ms\n');
  const program = start(t, dir, '--app', `app=tcp://127.0.0.1:${app.port}`);
  await program.line(/^ready$/);
  const client = await relay.tunnel();
  t.is((await program.stop()).code, 0);
  t.is((await client.ended).reason, 'connector_stopping');
});

test.serial('ztna-connector run - ends with 2 when a newer process took its place', async (t) => {
  const { dir, relay } = await enrolled(t);
  const program = start(t, dir);
  await program.line(/^ready$/);
  relay.channel?.close(4409, 'ERR_CONNECTOR_REPLACED');
  t.is((await program.ended).code, 2);
  t.regex(program.errorLines.join('\n'), /a newer process uses the identity of this connector/);
});

test.serial('ztna-connector run - refuses a directory that another runs from', async (t) => {
  const { dir } = await enrolled(t);
  await start(t, dir).line(/^ready$/);
  const second = await command('run', '--dir', dir);
  t.is(second.code, 2);
  t.regex(second.stderr, /ERR_CONFIG_LOCKED/);
});

test.serial('ztna-connector run - starts again after it was killed', async (t) => {
  const { dir } = await enrolled(t);
  const first = start(t, dir);
  await first.line(/^ready$/);
  await first.stop('SIGKILL');
  await start(t, dir).line(/^ready$/);
  t.pass();
});

test.serial(
  'ztna-connector run - reads connector.yaml again when told to, and keeps the old apps when it is wrong',
  async (t) => {
    const { dir, relay } = await enrolled(t);
    const file = join(dir, 'connector.yaml');
    await writeFile(file, 'apps: { app: "tcp://127.0.0.1:1" }\n');
    const program = start(t, dir);
    await program.line(/^ready$/);
    t.deepEqual((await relay.heard('hello')).apps, ['app']);
    await writeFile(file, 'apps: { app: "tcp://127.0.0.1:1", other: "tcp://127.0.0.1:2" }\n');
    program.child.kill('SIGHUP');
    t.deepEqual((await relay.heard('apps')).apps, ['app', 'other']);
    await writeFile(file, 'aps: {}\n');
    program.child.kill('SIGHUP');
    const refused = await program.until(
      () => program.errorLines.find((line) => line.includes('apps_reload_refused')),
      'the refusal',
    );
    t.regex(refused, /connector\.yaml line 1: unknown key/);
  },
);

test.serial('ztna-connector run - serves health and metrics where it is told to', async (t) => {
  const { dir } = await enrolled(t);
  const program = start(t, dir, '--admin-listen', '127.0.0.1:0');
  await program.line(/^ready$/);
  const line = program.errorLines.find((text) => text.includes('admin_listening')) ?? '{}';
  const { port } = JSON.parse(line) as { port: number };
  const answer = await fetch(`http://127.0.0.1:${port}/metrics`);
  t.regex(await answer.text(), /^ztna_connector_ready 1$/m);
});

test.serial('ztna-connector enroll - refuses to give up an identity', async (t) => {
  const { dir } = await enrolled(t);
  const refused = await command('enroll', '--dir', dir, 'ztna1_x');
  t.is(refused.code, 2);
  t.regex(refused.stderr, /ERR_IDENTITY_ALREADY_ENROLLED/);
});

for (const [title, args, code, words] of [
  ['an app of a kind that is not there yet', ['--app', 'dns=udp://h:53'], 2, /not available yet/],
  ['a bad target', ['--app', 'db=tcp://127.1:1'], 2, /not an address in full/],
  ['a code as an argument', ['--enroll', 'ztna1_abc'], 2, /arguments are no secret/],
  ['an admin listener beyond loopback', ['--admin-listen', '0.0.0.0:0'], 2, /loopback/],
  ['an unknown flag', ['--aps', 'x'], 2, /ERR_CONFIG_USAGE/],
  ['a directory without an identity', [], 4, /enroll/],
] as const) {
  test.serial(`ztna-connector run - refuses ${title}`, async (t) => {
    const dir = await temporaryDirectory(t);
    const refused = await command('run', '--dir', dir, ...args);
    t.is(refused.code, code);
    t.regex(refused.stderr, words);
    t.is(refused.stdout, '');
  });
}
