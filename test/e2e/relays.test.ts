import { once } from 'node:events';
import { readdir, readFile, stat } from 'node:fs/promises';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Deployment } from '../support/deployment.ts';
import { addDataPlane, listRelays, type DataPlaneRelay } from '../support/relays.ts';

async function startEcho(): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

interface Rig {
  readonly deployment: Deployment;
  readonly relays: DataPlaneRelay[];
}

/** One full relay, as many data planes alone, one connector. */
async function start(t: ExecutionContext, ...names: string[]): Promise<Rig> {
  t.timeout(120_000);
  const server = await startEcho();
  const { port } = server.address() as AddressInfo;
  const deployment = await Deployment.start({
    apps: [{ name: 'echo', target: `tcp://127.0.0.1:${port}` }],
    relayConfig: { verification: '{ interval: 5s }' },
  });
  const relays: DataPlaneRelay[] = [];
  t.teardown(async () => {
    await Promise.all(relays.map(({ program }) => program.stop('SIGKILL')));
    await deployment.stop();
    server.close();
  });
  for (const name of names) relays.push(await addDataPlane(deployment, name));
  return { deployment, relays };
}

/** Every file below a directory. */
async function filesIn(dir: string): Promise<string[]> {
  const names = await readdir(dir, { recursive: true });
  const found: string[] = [];
  for (const name of names.sort()) {
    if ((await stat(join(dir, name))).isFile()) found.push(name);
  }
  return found;
}

test('data plane alone - enrols once, runs again without a code, and its directory holds no signing key of the deployment', async (t) => {
  const { deployment, relays } = await start(t, 'b');
  const [relay] = relays;
  if (!relay) throw new Error('no relay');
  t.like((await listRelays(deployment)).get('b'), {
    url: relay.url,
    controlPlane: false,
    state: 'enrolled',
    online: true,
  });
  await relay.program.stop();
  await relay.restart();
  const files = await filesIn(relay.dir);
  t.deepEqual(files, [
    'data-plane/identity.json',
    'data-plane/relays.json',
    'relay.yaml',
    'run.lock',
  ]);
  // What it holds are keys of its own: none of them is one that the control plane signs with.
  const held = (
    await Promise.all(files.map((name) => readFile(join(relay.dir, name), 'utf8')))
  ).join('\n');
  const controlPlane = join(deployment.relayDir, 'control-plane');
  const keys = (await readdir(controlPlane)).filter((name) => name.endsWith('.key'));
  t.deepEqual(keys.sort(), [
    'audit.key',
    'ca.key',
    'grant.key',
    'root.key',
    'roster.key',
    'tls.key',
  ]);
  for (const name of keys) {
    const pem = await readFile(join(controlPlane, name), 'utf8');
    const body = pem.split('\n').filter((line) => line !== '' && !line.startsWith('-----'));
    t.true(body.length > 0);
    t.false(held.includes(body[0] ?? ''), name);
    t.false(held.includes(JSON.stringify(pem).slice(1, -1)), name);
  }
});

test('data plane alone - hands control channels on, and the control plane sees whose they are', async (t) => {
  const { deployment, relays } = await start(t, 'b');
  const [relay] = relays;
  if (!relay) throw new Error('no relay');
  // Everything that this machine dials goes to the data plane, enrolment too.
  const code = await deployment.admin('invite', 'user', 'bob', '--group', 'staff');
  const machine = deployment.machine({ ZTNA_RELAY_ADDRESS: `127.0.0.1:${relay.port}` });
  const { RunningProgram } = await import('../support/program.ts');
  const enroll = new RunningProgram(deployment.commands.ztna, ['enroll', '-', '--password-stdin'], {
    env: machine.env,
  });
  enroll.child.stdin.end(`${code.trim()}\ncorrect-horse-bob-battery\n`);
  t.is((await enroll.ended).code, 0, enroll.transcript());
  const status = await machine.ztna('status', '--json');
  t.is(status.code, 0, status.stderr);
  const [device] = (await deployment.admin('audit', 'export', '--since', '1h', '--format', 'jsonl'))
    .split('\n')
    .filter((line) => line.includes('"device.enrol"'));
  t.regex(device ?? '', /"address":"127\.0\.0\.1"/);
});
