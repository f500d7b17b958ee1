import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { Deployment, type Machine } from '../support/deployment.ts';
import type { RunningProgram } from '../support/program.ts';

interface Context {
  deployment: Deployment;
  appSockets: Set<Socket>;
  stops: (() => unknown)[];
}

interface Live {
  readonly program: RunningProgram;
  readonly socket: Socket;
  isCleanEnd: boolean;
}
const test = anyTest as TestFn<Context>;

/** Makes a program's wall clock wrong by so much, as a badly set machine's is; its timers run as they should. */
function wrongClock(offsetMs: number): Readonly<Record<string, string>> {
  const source = `
    const RealDate = Date;
    const offsetMs = ${offsetMs};
    globalThis.Date = class Date extends RealDate {
      constructor(...args) { args.length === 0 ? super(RealDate.now() + offsetMs) : super(...args); }
      static now() { return RealDate.now() + offsetMs; }
    };`;
  const url = `data:text/javascript;base64,${Buffer.from(source).toString('base64')}`;
  return { NODE_OPTIONS: `--import ${url}` };
}

const tenMinutesMs = 600_000;

test.before('a connector whose clock is ahead', async (t) => {
  t.timeout(90_000);
  const stops: (() => unknown)[] = [];
  t.context.stops = stops;
  const appSockets = new Set<Socket>();
  const server = createServer((socket) => {
    appSockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => appSockets.delete(socket));
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stops.push(() => server.close());
  const deployment = await Deployment.start({
    apps: [{ name: 'app', target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` }],
    relayConfig: { verification: '{ interval: 1s }' },
    env: { connector: wrongClock(tenMinutesMs), machine: wrongClock(-tenMinutesMs) },
  });
  stops.push(() => deployment.stop());
  Object.assign(t.context, { deployment, appSockets });
});

test.after.always('stop', async (t) => {
  for (const pid of stopped) process.kill(pid, 'SIGCONT');
  for (const stop of t.context.stops.reverse()) await stop();
});

/** A tunnel through which bytes have gone both ways and which has been verified since. */
async function openLive(t: ExecutionContext<Context>, machine: Machine): Promise<Live> {
  const { program, port } = await t.context.deployment.connect(machine, 'app');
  const opened = await program.event('open');
  // What the employee is shown is control time, whatever the machine's own clock says.
  const leftMs = Date.parse(String(opened['until'])) - Date.now();
  t.true(leftMs > -5_000 && leftMs < 60_000, `${leftMs} ms left`);
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => undefined);
  const live: Live = { program, socket, isCleanEnd: false };
  socket.once('end', () => (live.isCleanEnd = true));
  socket.write('hello');
  t.is(String((await once(socket, 'data'))[0]), 'hello');
  await program.event('verified', program.lines.length);
  return live;
}

test('clocks - 10 minutes ahead or behind, tunnels work and stand still at the end of their leases', async (t) => {
  t.timeout(90_000);
  const { deployment, appSockets } = t.context;
  const behind = await deployment.enrol();
  const ahead = deployment.machine({ ZTNA_HOME: behind.home, ...wrongClock(tenMinutesMs) });
  const lives = await Promise.all([openLive(t, behind), openLive(t, ahead)]);
  t.is(appSockets.size, 2);

  // From here on nobody verifies anything: connector and clients find the end of the leases by themselves.
  const stoppedAtMs = performance.now();
  for (const pid of await childrenOf(deployment.relay.child.pid)) {
    process.kill(pid, 'SIGSTOP');
    stopped.push(pid);
  }
  for (const { program } of lives) {
    t.is((await program.event('detached'))['reason'], 'lease_expired');
  }
  const { connector } = deployment;
  const detached = (): string[] => connector.errorLines.filter((l) => /"tunnel_detached"/.test(l));
  await connector.until(() => (detached().length === 2 ? true : undefined), 'both detached');
  const tookMs = performance.now() - stoppedAtMs;
  t.true(tookMs < 20_000, `${tookMs} ms after the last word of the relay`);
  for (const line of detached()) t.regex(line, /lease_expired/);
  // What is said now waits: both ends are kept, and nothing passes between them.
  let lateBytes = 0;
  for (const each of appSockets) each.on('data', (chunk: Buffer) => (lateBytes += chunk.length));
  for (const { socket } of lives) socket.write('late');
  t.like(await deployment.connectorStatus(), { tunnels: 2, detached: 2 });
  t.is(lateBytes, 0);
  for (const { isCleanEnd, socket } of lives) t.false(isCleanEnd || socket.destroyed);
  t.is(appSockets.size, 2);
});

const stopped: number[] = [];

/** The processes that a program has started, by Linux's own list. */
async function childrenOf(pid: number | undefined): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.trim().split(' ').map(Number);
}
