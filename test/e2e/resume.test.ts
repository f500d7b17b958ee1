import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { commandLine, withDescendants } from '../bench/processes.ts';
import { Deployment } from '../support/deployment.ts';

interface Context {
  deployment: Deployment;
  server: Server;
}
const test = anyTest as TestFn<Context>;

const blockBytes = 65_536;
const block = randomBytes(blockBytes);

test.before(
  'an app that answers with what it received, and a deployment of one relay',
  async (t) => {
    t.timeout(60_000);
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.context.server = server;
    const { port } = server.address() as AddressInfo;
    t.context.deployment = await Deployment.start({
      apps: [{ name: 'echo', target: `tcp://127.0.0.1:${String(port)}` }],
    });
  },
);

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  t.context.server.close();
});

function dataPlaneOf(deployment: Deployment): number {
  const found = withDescendants([deployment.relay.child.pid ?? 0]).find((pid) =>
    commandLine(pid).includes('data-plane/main'),
  );
  if (found === undefined) throw new Error('no data plane process');
  return found;
}

interface Echo {
  readonly sent: string;
  readonly received: string;
  readonly isCleanEnd: boolean;
  readonly error: string | undefined;
}

/** Sends `total` bytes and reads them back; `onBytes` hears how many have come back. */
async function echo(port: number, total: number, onBytes: (bytes: number) => void): Promise<Echo> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const sent = createHash('sha256');
  const received = createHash('sha256');
  let error: string | undefined;
  let isCleanEnd = false;
  let back = 0;
  socket.on('error', (thrown: NodeJS.ErrnoException) => (error = thrown.code));
  socket.once('end', () => (isCleanEnd = true));
  socket.on('data', (chunk: Buffer) => {
    received.update(chunk);
    back += chunk.length;
    onBytes(back);
  });
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  void write(socket, total, (chunk) => sent.update(chunk));
  await closed;
  return { sent: sent.digest('hex'), received: received.digest('hex'), isCleanEnd, error };
}

async function write(socket: Socket, total: number, note: (chunk: Buffer) => void): Promise<void> {
  for (let written = 0; written < total && !socket.destroyed; written += blockBytes) {
    const chunk = Buffer.from(block);
    chunk.writeUInt32BE(written / blockBytes, 0);
    note(chunk);
    if (!socket.write(chunk)) await once(socket, 'drain').catch(() => undefined);
  }
  socket.end();
}

async function assertSurvives(
  t: ExecutionContext<Context>,
  kill: (deployment: Deployment) => void,
): Promise<void> {
  const { deployment } = t.context;
  const machine = await deployment.enrol(`user-${randomBytes(4).toString('hex')}`);
  const { program, port } = await deployment.connect(machine, 'echo');
  const total = 64 * 1_048_576;
  const marks = [total / 8, total / 2];
  const flow = echo(port, total, (bytes) => {
    if (bytes < (marks[0] ?? Infinity)) return;
    marks.shift();
    kill(deployment);
  });
  const { sent, received, isCleanEnd, error } = await flow;
  t.is(error, undefined);
  t.true(isCleanEnd);
  t.is(received, sent);
  t.is(marks.length, 0);
  const events = program.lines.map((line) => (JSON.parse(line) as { event: string }).event);
  t.log(events.join(' '));
  t.is(events.filter((event) => event === 'closed').length, 0);
  t.is(events.filter((event) => event === 'detached').length, 2);
  t.is(events.filter((event) => event === 'resumed').length, 2);
  t.is((await program.stop('SIGINT')).code, 130);
}

test.serial(
  'relay killed - a transfer through its data plane goes on, and not a byte is lost',
  async (t) => {
    t.timeout(120_000);
    await assertSurvives(t, (deployment) => process.kill(dataPlaneOf(deployment), 'SIGKILL'));
  },
);

test.serial('relay killed - what goes through standard input and output goes on too', async (t) => {
  t.timeout(120_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol(`user-${randomBytes(4).toString('hex')}`);
  const { ztna } = deployment.commands;
  const child = spawn(ztna, ['connect', 'echo', '--stdio', '--json'], {
    env: { PATH: process.env['PATH'], ZTNA_NO_INPUT: '1', ...machine.env },
    stdio: 'pipe',
  });
  t.teardown(() => child.kill('SIGKILL'));
  const talk: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => talk.push(chunk));
  const sent = createHash('sha256');
  const received = createHash('sha256');
  const total = 24 * 1_048_576;
  let back = 0;
  let isKilled = false;
  child.stdout.on('data', (chunk: Buffer) => {
    received.update(chunk);
    back += chunk.length;
    if (isKilled || back < total / 3) return;
    isKilled = true;
    process.kill(dataPlaneOf(deployment), 'SIGKILL');
  });
  const closed = once(child, 'close');
  for (let written = 0; written < total; written += blockBytes) {
    sent.update(block);
    if (!child.stdin.write(block)) await once(child.stdin, 'drain');
  }
  child.stdin.end();
  const [code] = (await closed) as [number | null];
  t.is(code, 0, Buffer.concat(talk).toString());
  t.is(received.digest('hex'), sent.digest('hex'));
  t.regex(Buffer.concat(talk).toString(), /"detached".*"resumed"/s);
});

test.serial(
  'connector killed - connections are reset, and never end as if the app had finished',
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const machine = await deployment.enrol(`user-${randomBytes(4).toString('hex')}`);
    const { program, port } = await deployment.connect(machine, 'echo');
    const socket = connect({ port, host: '127.0.0.1' });
    const ending = new Promise<string>((resolve) => {
      socket.once('end', () => resolve('end'));
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    });
    socket.write('hello');
    await once(socket, 'data');
    const killedAtMs = performance.now();
    await deployment.connector.stop('SIGKILL');
    t.is(await ending, 'ECONNRESET');
    t.log(`reset after ${Math.round(performance.now() - killedAtMs)} ms`);
    await program.event('detached');
    const seen = program.lines.length;
    await deployment.startConnector();
    await program.event('open', seen); // another tunnel, through the process that took its place
    const again = connect({ port, host: '127.0.0.1' });
    again.on('error', () => undefined); // the program ends before it does
    t.teardown(() => again.destroy());
    again.write('again');
    t.is(String((await once(again, 'data'))[0]), 'again');
    t.is((await program.stop('SIGINT')).code, 130);
  },
);
