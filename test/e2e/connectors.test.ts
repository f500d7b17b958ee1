import { once } from 'node:events';
import { cp, rm } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { Deployment } from '../support/deployment.ts';
import { HalfOpenLink } from '../support/half-open-link.ts';
import type { RunningProgram } from '../support/program.ts';

interface Context {
  app: Server;
  deployment: Deployment;
}
const test = anyTest as TestFn<Context>;

test.beforeEach('an app that says every chunk back', async (t) => {
  t.timeout(120_000);
  const app = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  app.listen(0, '127.0.0.1');
  await once(app, 'listening');
  t.context.app = app;
});

test.afterEach.always('stop', async (t) => {
  await (t.context.deployment as Deployment | undefined)?.stop();
  t.context.app.close();
});

async function deploy(
  t: ExecutionContext<Context>,
  options: Partial<Parameters<typeof Deployment.start>[0]> = {},
): Promise<Deployment> {
  const { port } = t.context.app.address() as AddressInfo;
  t.context.deployment = await Deployment.start({
    apps: [{ name: 'echo', target: `tcp://127.0.0.1:${port}` }],
    ...options,
  });
  return t.context.deployment;
}

interface TunnelRow {
  readonly state: string;
  readonly connector: string;
  readonly closeReason: string | null;
}

/** How many tunnels are open through each connector. */
async function openByConnector(deployment: Deployment): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { state, connector } of (await deployment.ask('tunnel.list')) as TunnelRow[]) {
    if (state === 'open') counts[connector] = (counts[connector] ?? 0) + 1;
  }
  return counts;
}

async function statusOf(deployment: Deployment, dir: string): Promise<Record<string, unknown>> {
  const { runProgram } = await import('../support/program.ts');
  const { connector } = deployment.commands;
  const { stdout } = await runProgram(connector, ['status', '--dir', dir, '--json']);
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** How a local connection went on: bytes said back, or how it ended. */
class Conversation {
  readonly socket: Socket;
  /** `end`, or the code of its error. */
  readonly ended: Promise<string>;

  constructor(port: number) {
    this.socket = connect({ port, host: '127.0.0.1' });
    this.ended = new Promise((resolve) => {
      this.socket.once('end', () => {
        resolve('end');
      });
      this.socket.once('error', (error: NodeJS.ErrnoException) => {
        resolve(error.code ?? error.message);
      });
    });
  }

  /** Says something and waits for all of it. Throws when the connection ends instead. */
  async echo(text: string): Promise<string> {
    this.socket.write(text);
    let heard = '';
    while (heard.length < text.length) {
      const next = once(this.socket, 'data') as Promise<[Buffer]>;
      next.catch(() => undefined); // `ended` says how it ended
      const how = await Promise.race([next, this.ended]);
      if (typeof how === 'string') throw new Error(how);
      heard += String(how[0]);
    }
    return heard;
  }
}

/**
 * Makes new connections, one every few milliseconds, until one is answered. One that was made before anyone could know
 * of the loss waits with those of before.
 */
async function untilAnswered(port: number): Promise<void> {
  const answered = new AbortController();
  const tried: Conversation[] = [];
  while (!answered.signal.aborted) {
    const conversation = new Conversation(port);
    tried.push(conversation);
    conversation.echo('anyone?').then(
      () => {
        answered.abort();
      },
      () => undefined,
    );
    await delay(50, undefined, { signal: answered.signal }).catch(() => undefined);
  }
  for (const { socket } of tried) socket.destroy();
}

test('two connectors - share the tunnels, and one that is killed is replaced by the other', async (t) => {
  const deployment = await deploy(t);
  const second = await deployment.addConnector('spare');
  const machine = await deployment.enrol('alice');
  const tunnels: { program: RunningProgram; port: number }[] = [];
  for (let i = 0; i < 4; i++) tunnels.push(await deployment.connect(machine, 'echo'));
  t.deepEqual(Object.values(await openByConnector(deployment)).sort(), [2, 2]);

  const talks = tunnels.map(({ port }) => new Conversation(port));
  for (const talk of talks) t.is(await talk.echo('hello'), 'hello');
  const cut = Date.now();
  const outcomes = talks.map(({ ended }) => ended.then((how) => ({ how, ms: Date.now() - cut })));
  deployment.connector.child.kill('SIGKILL');
  const answers = tunnels.map(async ({ port }) => {
    await untilAnswered(port);
    return Date.now() - cut;
  });
  t.log(`new connections after kill -9: ${(await Promise.all(answers)).join(', ')} ms`);
  const reset: number[] = [];
  for (const [index, talk] of talks.entries()) {
    const alive = talk.echo('still?').then(
      () => undefined,
      () => undefined,
    );
    const outcome = await Promise.race([outcomes[index], alive]);
    if (!outcome) continue;
    t.is(outcome.how, 'ECONNRESET', 'a connector that dies is no end of the data');
    reset.push(outcome.ms);
  }
  t.log(`resets shown after ${reset.join(', ')} ms`);
  t.is(reset.length, 2);
  t.is((await statusOf(deployment, second.dir))['state'], 'ready');
  for (const { socket } of talks) socket.destroy();
});

test('two connectors - one is stopped under load and nothing is lost', async (t) => {
  const deployment = await deploy(t);
  await deployment.addConnector('spare');
  const machine = await deployment.enrol('alice');
  const tunnels = [
    await deployment.connect(machine, 'echo'),
    await deployment.connect(machine, 'echo'),
  ];
  const talks = tunnels.map(({ port }) => new Conversation(port));
  let isOver = false as boolean;
  let count = 0;
  const load = tunnels.map(async ({ port }) => {
    while (!isOver) {
      const talk = new Conversation(port);
      t.is(await talk.echo('a short one'), 'a short one');
      talk.socket.end();
      t.is(await talk.ended, 'end');
      count++;
    }
  });
  const { connector: stopped } = await statusOf(deployment, deployment.connectorDir);
  for (const talk of talks) t.is(await talk.echo('before'), 'before');
  deployment.connector.child.kill('SIGTERM');
  // Every agent has a tunnel through the one that stays.
  for (;;) {
    const counts = await openByConnector(deployment);
    const staying = Object.entries(counts).filter(([id]) => id !== stopped);
    if (staying.reduce((sum, [, open]) => sum + open, 0) === 2) break;
    await delay(20);
  }
  for (const talk of talks) t.is(await talk.echo('and after'), 'and after');
  t.is(deployment.connector.child.exitCode, null, 'it waits for what is in use');
  isOver = true;
  await Promise.all(load);
  for (const talk of talks) {
    talk.socket.end();
    t.is(await talk.ended, 'end');
  }
  t.deepEqual(await deployment.connector.ended, { code: 0, signal: null });
  t.log(`${count} short connections meanwhile`);
});

test('one identity twice - the newer process counts, and a frozen older one that thaws stays out', async (t) => {
  const deployment = await deploy(t);
  const older = deployment.connector;
  const copy = join(deployment.dir, 'copy');
  older.child.kill('SIGSTOP');
  t.teardown(() => older.child.kill('SIGKILL'));
  await cp(deployment.connectorDir, copy, {
    recursive: true,
    filter: (source) => !source.endsWith('.sock'),
  });
  const newer = await deployment.runConnector(copy);
  older.child.kill('SIGCONT');
  t.deepEqual(await older.ended, { code: 2, signal: null });
  t.regex(older.errorLines.join('\n'), /a newer process uses the identity of this connector/);
  const machine = await deployment.enrol('alice');
  const { port } = await deployment.connect(machine, 'echo');
  await untilAnswered(port);
  t.is(newer.child.exitCode, null);
  t.is((await statusOf(deployment, copy))['state'], 'ready');
  await rm(copy, { recursive: true, force: true });
});

test('half-open link - connector and relay find it without a word from anyone, and go on', async (t) => {
  const links: HalfOpenLink[] = [];
  const deployment = await deploy(t, {
    connectorArgs: ['--admin-listen', '127.0.0.1:0'],
    link: async (port) => {
      const link = await HalfOpenLink.start(port);
      links.push(link);
      t.teardown(() => link.stop());
      return link.port;
    },
  });
  const machine = await deployment.enrol('alice');
  const { program, port } = await deployment.connect(machine, 'echo');
  const talk = new Conversation(port);
  t.is(await talk.echo('before'), 'before');
  const frozenAt = Date.now();
  const seen = program.lines.length;
  links[0]?.freeze();
  talk.socket.write('on the way');
  const within = (what: string) => () => {
    t.log(`${what} after ${Date.now() - frozenAt} ms`);
  };
  const { connector, relay } = deployment;
  const line = (of: RunningProgram, text: string) =>
    of.until(() => of.errorLines.find((row) => row.includes(text)), text);
  await Promise.all([
    line(connector, '"channel_lost"').then(within('channel lost at the connector')),
    line(relay, '"connector_silent"').then(within('path given up at the relay')),
    program.line(/"event":"(detached|closed)"/, seen).then(within('path given up at the client')),
  ]);
  await untilAnswered(port);
  within('a new connection answered')();
  // It was not ready meanwhile, and is again.
  while ((await readiness(connector)) !== 'ready\n') await delay(20);
  talk.socket.destroy();
});

/** What `/readyz` of a connector with an admin listener says. */
async function readiness(connector: RunningProgram): Promise<string> {
  const row = connector.errorLines.find((text) => text.includes('admin_listening')) ?? '{}';
  const { port } = JSON.parse(row) as { port: number };
  return (await fetch(`http://127.0.0.1:${port}/readyz`)).text();
}
