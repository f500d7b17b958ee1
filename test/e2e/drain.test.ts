import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { readStatus } from '../../connector/status-socket.ts';
import { Deployment } from '../support/deployment.ts';
import type { RunningProgram } from '../support/program.ts';
import { addDataPlane, listRelays } from '../support/relays.ts';

interface Context {
  readonly deployment: Deployment;
  readonly stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

test.before('an app, and a relay that may take a minute to drain', async (t) => {
  t.timeout(120_000);
  const stops: (() => unknown)[] = [];
  Object.assign(t.context, { stops });
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stops.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  const deployment = await Deployment.start({
    apps: [{ name: 'echo', target: `tcp://127.0.0.1:${port}` }],
    relayConfig: { drainFor: '60s' },
  });
  stops.push(() => deployment.stop());
  Object.assign(t.context, { deployment });
});

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

/** One connection to the app, for the whole test. */
class Echo {
  readonly #socket: Socket;
  #received = '';

  constructor(t: ExecutionContext, port: number) {
    this.#socket = connect({ port, host: '127.0.0.1' });
    this.#socket.on('data', (chunk: Buffer) => (this.#received += chunk.toString()));
    this.#socket.on('error', () => undefined);
    t.teardown(() => this.#socket.destroy());
  }

  /** Resolves once exactly this has come back behind everything before. */
  async say(text: string): Promise<void> {
    const expected = this.#received + text;
    this.#socket.write(text);
    while (this.#received !== expected) {
      if (!expected.startsWith(this.#received)) throw new Error(`it said ${this.#received}`);
      await once(this.#socket, 'data'); // throws when it is reset
    }
  }
}

/** What a line of a relay's log says under that event. */
function logged(program: RunningProgram, event: string): Record<string, unknown>[] {
  return program.errorLines
    .filter((line) => line.includes(`"${event}"`))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Waits for the end without a deadline of its own. */
async function sigterm(program: RunningProgram): Promise<number | null> {
  program.child.kill('SIGTERM');
  return (await program.ended).code;
}

async function carrierOf(deployment: Deployment): Promise<string> {
  for (;;) {
    const rows = (await deployment.ask('tunnel.list')) as { state: string; relay: string | null }[];
    const open = rows.find(({ state }) => state === 'open');
    if (typeof open?.relay === 'string') return open.relay;
    await delay(20);
  }
}

/** What an operator waits for before the next restart: every relay is there, and the connector has sockets at each. */
async function allCarry(deployment: Deployment, count: number): Promise<void> {
  for (;;) {
    const rows = (await deployment.ask('relay.list')) as { online: boolean; state: string }[];
    const isThere = rows.every(({ online, state }) => online && state === 'enrolled');
    const status = await readStatus(deployment.connectorDir);
    const filled = status?.relays.filter(({ state }) => state === 'filled').length;
    if (isThere && filled === count) return;
    await delay(20);
  }
}

test.serial(
  'drain - the only relay keeps nobody waiting, and its tunnels go on when it is back',
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    // The data plane waits for the control plane, so nobody dials it in vain.
    t.deepEqual(logged(deployment.relay, 'control_link_lost'), []);
    const machine = await deployment.enrol();
    const { program, port } = await deployment.connect(machine, 'echo');
    const echo = new Echo(t, port);
    await echo.say('before');
    const { relay } = deployment;
    t.is(await sigterm(relay), 0);
    const [drained] = logged(relay, 'drained');
    t.is(drained?.['left'], 1);
    for (const event of ['child_killed', 'child_not_drained', 'stop_failed']) {
      t.deepEqual(logged(relay, event), []);
    }
    const seen = program.lines.length;
    const said = echo.say('meanwhile');
    await deployment.startRelay();
    await program.event('resumed', Math.max(0, seen - 2));
    await said;
    await echo.say('after');
    await program.stop();
  },
);

test.serial(
  'drain - a relay that stops sends its tunnels to another, and waits until they have left',
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const plane = await addDataPlane(deployment, 'b');
    t.teardown(() => plane.program.stop('SIGKILL'));
    const machine = await deployment.enrol('bob');
    const { program, port } = await deployment.connect(machine, 'echo');
    const echo = new Echo(t, port);
    await echo.say('first');
    const passed = new Set<string>();
    // Each that carries it stops in turn, as in a rolling upgrade.
    for (let round = 0; round < 2; round++) {
      const carrier = await carrierOf(deployment);
      passed.add(carrier);
      const isPlane = (await listRelays(deployment)).get('b')?.['id'] === carrier;
      const seen = program.lines.length;
      const stopping = isPlane ? plane.program : deployment.relay;
      const ended = sigterm(stopping);
      await program.event('moved', seen);
      await echo.say(`round ${round}`);
      t.is(await ended, 0);
      t.is(logged(stopping, 'drained')[0]?.['left'], 0);
      if (isPlane) await plane.restart();
      else await deployment.startRelay();
      await allCarry(deployment, 2);
      await echo.say(`round ${round} again`);
      t.deepEqual(
        program.lines.slice(seen).filter((line) => /"event":"(?:closed|detached)"/.test(line)),
        [],
      );
    }
    t.is(passed.size, 2);
    await program.stop();
  },
);
