import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { join, relative } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { bridgeStream, createLogger, loadIdentity } from '../../protocol/host/index.ts';
import { Agent } from '../../client/agent/agent.ts';
import type { Permit } from '../../client/agent/permit.ts';
import { commandLine, withDescendants } from '../bench/processes.ts';
import { Deployment, type Machine } from '../support/deployment.ts';
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

interface Context {
  readonly deployment: Deployment;
  readonly b: DataPlaneRelay;
  readonly stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

test.before('a full relay, a data plane alone, and one connector', async (t) => {
  t.timeout(120_000);
  const stops: (() => unknown)[] = [];
  Object.assign(t.context, { stops });
  const server = await startEcho();
  stops.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  const deployment = await Deployment.start({
    apps: [{ name: 'echo', target: `tcp://127.0.0.1:${port}` }],
    relayConfig: { verification: '{ interval: 5s }' },
  });
  stops.push(() => deployment.stop());
  const b = await addDataPlane(deployment, 'b');
  stops.push(() => b.program.stop('SIGKILL'));
  Object.assign(t.context, { deployment, b });
});

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

/** An agent of an enrolled machine, in this process. */
async function startAgent(t: ExecutionContext, machine: Machine): Promise<Agent> {
  const profile = { name: 'default', dir: join(machine.home, 'default') };
  const identity = await loadIdentity(profile.dir);
  if (!identity) throw new Error('not enrolled');
  const logger = createLogger({ program: 'test', write: () => undefined });
  const agent = await Agent.start({ profile, identity, logger });
  t.teardown(() => agent.stop());
  return agent;
}

/** The first permit that `isWanted`, asked for again and again. */
async function permitWhere(agent: Agent, isWanted: (urls: string[]) => boolean): Promise<Permit> {
  for (;;) {
    try {
      const permit = await agent.requestPermit('echo');
      if (isWanted(permit.relays.map(({ url }) => url))) return permit;
    } catch {
      // the connector is not back yet
    }
    await wait(300); // a device may not ask for grants as often as it likes
  }
}

/** Sends a text through a new tunnel under the permit and answers what came back. */
async function echoThrough(agent: Agent, permit: Permit, text: string): Promise<string> {
  const tunnel = await agent.openTunnel(permit);
  await tunnel.accepted;
  const stream = tunnel.openStream();
  const bridge = createServer((socket) => {
    bridgeStream(stream, socket);
  });
  bridge.listen(0, '127.0.0.1');
  await once(bridge, 'listening');
  const socket = connect((bridge.address() as AddressInfo).port, '127.0.0.1');
  try {
    socket.write(text);
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    return chunk.toString();
  } finally {
    socket.destroy();
    bridge.close();
    await agent.closeTunnel(tunnel, 'test_over');
  }
}

/** Every file below a directory. */
async function filesIn(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true }); // one being renamed may be gone by now
  const files = entries.filter((entry) => entry.isFile());
  return files.map((entry) => relative(dir, join(entry.parentPath, entry.name))).sort();
}

test.serial(
  'data plane alone - enrols once, runs again without a code, and its directory holds no signing key of the deployment',
  async (t) => {
    const { deployment, b: relay } = t.context;
    t.like((await listRelays(deployment)).get('b'), {
      url: relay.url,
      controlPlane: false,
      state: 'enrolled',
      online: true,
    });
    const probe = (path: string) => fetch(`http://127.0.0.1:${relay.adminPort}/${path}`);
    t.is((await probe('readyz')).status, 200);
    t.regex(await (await probe('metrics')).text(), /^ztna_data_plane_control_planes 1$/m);
    await relay.program.stop();
    await relay.restart();
    // A newer list of relays may be on its way to disk at this moment.
    const files = (await filesIn(relay.dir)).filter((name) => !/relays\.json\..*\.tmp$/.test(name));
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
      'seal.key',
      'tls.key',
    ]);
    for (const name of keys) {
      const pem = await readFile(join(controlPlane, name), 'utf8');
      const body = pem.split('\n').filter((line) => line !== '' && !line.startsWith('-----'));
      t.true(body.length > 0);
      t.false(held.includes(body[0] ?? ''), name);
      t.false(held.includes(JSON.stringify(pem).slice(1, -1)), name);
    }
  },
);

test.serial(
  'data plane alone - hands control channels on, and the control plane sees whose they are',
  async (t) => {
    const { deployment, b: relay } = t.context;
    // Everything that this machine dials goes to the data plane, enrolment too.
    const code = await deployment.admin('invite', 'user', 'bob', '--group', 'staff');
    const machine = deployment.machine({ ZTNA_RELAY_ADDRESS: `127.0.0.1:${relay.port}` });
    const { RunningProgram } = await import('../support/program.ts');
    const enroll = new RunningProgram(
      deployment.commands.ztna,
      ['enroll', '-', '--password-stdin'],
      {
        env: machine.env,
      },
    );
    enroll.child.stdin.end(`${code.trim()}\ncorrect-horse-bob-battery\n`);
    t.is((await enroll.ended).code, 0, enroll.transcript());
    const status = await machine.ztna('status', '--json');
    t.is(status.code, 0, status.stderr);
    const [device] = (
      await deployment.admin('audit', 'export', '--since', '1h', '--format', 'jsonl')
    )
      .split('\n')
      .filter((line) => line.includes('"device.enrol"'));
    t.regex(device ?? '', /"address":"127\.0\.0\.1"/);
  },
);

test.serial(
  'three relays - tunnels go through each, and a dead one is routed around',
  async (t) => {
    t.timeout(120_000);
    const { deployment, b } = t.context;
    const c = await addDataPlane(deployment, 'c');
    t.teardown(() => c.program.stop('SIGKILL'));
    const urls = [deployment.url, b.url, c.url];
    const machine = await deployment.enrol('alice');
    const agent = await startAgent(t, machine);
    for (const url of urls) {
      const permit = await permitWhere(agent, (named) =>
        urls.every((each) => named.includes(each)),
      );
      const only = permit.relays.filter((relay) => relay.url === url);
      t.is(
        await echoThrough(agent, { ...permit, relays: only }, `through ${url}`),
        `through ${url}`,
      );
    }

    // Killed: a permit from before still names it, one from now on does not.
    const before = await permitWhere(agent, (named) => named.includes(b.url));
    await b.program.stop('SIGKILL');
    const ordered = [...before.relays].sort(
      (x, y) => Number(y.url === b.url) - Number(x.url === b.url),
    );
    t.is(await echoThrough(agent, { ...before, relays: ordered }, 'around b'), 'around b');
    await permitWhere(agent, (named) => !named.includes(b.url) && named.includes(c.url));
    t.is((await listRelays(deployment)).get('b')?.['online'], false);

    // Silent: its sockets stand, and nothing answers on them.
    const pids = withDescendants([c.program.child.pid ?? 0]);
    const frozen = pids.find((pid) => commandLine(pid).includes('data-plane/main')) ?? 0;
    t.teardown(() => {
      process.kill(frozen, 'SIGCONT');
    });
    process.kill(frozen, 'SIGSTOP');
    const startedAtMs = performance.now();
    const permit = await permitWhere(agent, (named) => !named.includes(c.url));
    t.log(`unroutable ${Math.round(performance.now() - startedAtMs)} ms after it fell silent`);
    t.is(await echoThrough(agent, permit, 'around c'), 'around c');

    // Back again.
    process.kill(frozen, 'SIGCONT');
    await b.restart();
    await permitWhere(agent, (named) => urls.every((each) => named.includes(each)));
  },
);

test.serial(
  'list of relays - is kept by every program, so that the next start knows more than one address',
  async (t) => {
    const { deployment, b } = t.context;
    const machine = await deployment.enrol('carol');
    t.is((await machine.ztna('status')).code, 0);
    const profile = join(machine.home, 'default');
    for (const dir of [profile, deployment.connectorDir, join(b.dir, 'data-plane')]) {
      const { statement } = JSON.parse(await readFile(join(dir, 'relays.json'), 'utf8')) as {
        statement: string;
      };
      const list = Buffer.from(statement.split('.')[1 + 1] ?? '', 'base64url').toString();
      t.true(list.includes(b.url) && list.includes(deployment.url), dir);
    }
    // The relay that it was enrolled at has another address now, as far as it knows.
    const path = join(profile, 'identity.json');
    const identity = await readFile(path, 'utf8');
    await writeFile(path, identity.replaceAll(deployment.url, 'https://127.0.0.1:1'));
    const status = await machine.ztna('status', '--json');
    t.is(status.code, 0, status.stderr);
  },
);
