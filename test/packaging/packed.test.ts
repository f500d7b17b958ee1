import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { TestApp } from '../connector/test-app.ts';
import { Deployment } from '../support/deployment.ts';
import { installPackage, packCheckout, type Packed } from '../support/package.ts';
import { mustRun, runProgram, type Commands, type RunningProgram } from '../support/program.ts';

const isWanted = process.env['ZTNA_TEST_PACK'] === '1';
const nodeVersions = ['22.16.0', '24', '26'];

let dir = '';
let packed: Packed;

test.before(async (t) => {
  t.timeout(240_000);
  if (!isWanted) return;
  dir = await mkdtemp(join(tmpdir(), 'ztna-packed-'));
  packed = await packCheckout(dir);
});

test.after.always(async () => {
  if (dir !== '') await rm(dir, { recursive: true, force: true });
});

function isLeftOut(t: ExecutionContext): boolean {
  if (isWanted) return false;
  t.log('set ZTNA_TEST_PACK=1 to pack this checkout and run the package on every supported Node');
  t.pass();
  return true;
}

test.serial('package - holds compiled programs and documents, no sources, tests or state', (t) => {
  if (isLeftOut(t)) return;
  const paths = packed.files.map(({ path }) => path);
  const isExpected = (path: string): boolean =>
    /^dist\/(client|connector|protocol|relay)\/[a-z0-9/-]+\.js$/.test(path) ||
    /^docs\/[a-z0-9/-]+\.md$/.test(path) ||
    ['LICENSE', 'README.md', 'CHANGELOG.md', 'SECURITY.md', 'package.json'].includes(path);
  t.deepEqual(
    paths.filter((path) => !isExpected(path)),
    [],
  );
  for (const path of [
    'LICENSE',
    'README.md',
    'dist/client/main.js',
    'dist/connector/main.js',
    'dist/relay/main.js',
    'dist/relay/control-plane/main.js',
    'dist/relay/control-plane/policy/validate-worker.js',
    'dist/relay/data-plane/main.js',
  ]) {
    t.true(paths.includes(path), path);
  }
});

test.serial('package - npx runs a command of the checkout itself', async (t) => {
  if (isLeftOut(t)) return;
  const { code, stdout, stderr } = await runProgram('npx', ['ztna', '--help'], {
    cwd: join(import.meta.dirname, '..', '..'),
  });
  t.is(code, 0, stderr);
  t.true(stdout.includes('ztna connect <app>'));
});

for (const version of nodeVersions) {
  test.serial(
    `package - carries bytes between its three programs on Node ${version}`,
    async (t) => {
      if (isLeftOut(t)) return;
      t.timeout(400_000);
      const commands = await installPackage(packed.tarball, version, join(dir, `node-${version}`));
      await checkCommands(t, commands, version);
      await checkTunnel(t, commands);
    },
  );
}

/** The commands that need no relay, and what they say when they are misused. */
async function checkCommands(t: ExecutionContext, commands: Commands, version: string) {
  const env = { ...commands.env };
  const node = (await mustRun('node', ['--version'], { env })).trim();
  t.true(`${node}.`.startsWith(`v${version}.`), node);
  const manifest = await readFile(join(import.meta.dirname, '..', '..', 'package.json'), 'utf8');
  const own = (JSON.parse(manifest) as { version: string }).version;
  for (const command of [commands.ztna, commands.connector, commands.relay]) {
    t.deepEqual(await runProgram(command, ['--version'], { env }), {
      code: 0,
      signal: null,
      stdout: `${own}\n`,
      stderr: '',
    });
    const { code, stderr } = await runProgram(command, ['--no-such-option'], { env });
    t.is(code, 2);
    t.true(stderr.includes('[ERR_CONFIG_USAGE]'), stderr);
  }
}

/** One deployment of the installed commands, from `init` to the end of access. */
async function checkTunnel(t: ExecutionContext, commands: Commands) {
  const app = await TestApp.start();
  t.teardown(() => app.stop());
  const deployment = await Deployment.start({
    apps: [{ name: 'echo', target: `tcp://127.0.0.1:${app.port}` }],
    commands,
  });
  t.teardown(() => deployment.stop());

  const machine = await deployment.enrol('alice');
  const { program, port } = await deployment.connect(machine, 'echo');
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => undefined); // access that ends resets it
  t.teardown(() => socket.destroy());
  socket.write('a');
  const far = await app.next();
  far.pipe(far);
  const [chunk] = (await once(socket, 'data')) as [Buffer];
  t.is(chunk.toString(), 'a');

  const denied = await machine.ztna('connect', 'no-such-app');
  t.is(denied.code, 5, denied.stderr);
  const bad = await deployment.tryAdmin('policy', 'check', join(dir, 'no-such-policies'));
  t.is(bad.code, 2, bad.stderr);
  const list = await deployment.tryAdmin('tunnel', 'list', '--json');
  t.is(list.stderr, '');
  t.is(list.stdout.trim().split('\n').length, 1);

  await deployment.admin('user', 'disable', 'alice');
  t.deepEqual(await program.ended, { code: 7, signal: null });
  t.true(program.errorLines.at(-1)?.startsWith('{"error":'));
  t.deepEqual(program.errorLines.slice(0, -1), []);
  await checkOrderlyEnd(t, deployment.connector);
  await checkOrderlyEnd(t, deployment.relay);
}

/** A program that stays ends with 0 at SIGTERM, and all that it wrote to standard error is its log. */
async function checkOrderlyEnd(t: ExecutionContext, program: RunningProgram) {
  t.deepEqual(await program.stop(), { code: 0, signal: null });
  const notLogged = program.errorLines.filter((line) => !/^\{"time":.*\}$/.test(line));
  t.deepEqual(notLogged, []);
}
