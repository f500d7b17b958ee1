import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { Deployment, type Machine } from '../support/deployment.ts';
import type { RunningProgram } from '../support/program.ts';

/** Of tunnels that are verified every second, and a little: control time is an estimate. */
const longestLeaseMs = 5_500;

const openPolicies = {
  'staff.cedar':
    '@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource);',
};

interface Context {
  deployment: Deployment;
  server: Server;
  appSockets: Set<Socket>;
}
const test = anyTest as TestFn<Context>;

test.before('an app that ticks, and a deployment that verifies every second', async (t) => {
  t.timeout(60_000);
  const appSockets = new Set<Socket>();
  const server = createServer((socket) => {
    appSockets.add(socket);
    const ticking = setInterval(() => socket.write('tick\n'), 5);
    socket.on('error', () => undefined);
    socket.once('close', () => {
      clearInterval(ticking);
      appSockets.delete(socket);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.context.server = server;
  t.context.appSockets = appSockets;
  t.context.deployment = await Deployment.start({
    apps: [{ name: 'ticker', target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` }],
    relayConfig: { verification: '{ interval: 1s }' },
  });
});

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  t.context.server.close();
});

/** Resolves when the socket is gone, by an error or not (`once` of node:events would reject). */
const closing = (socket: Socket): Promise<void> =>
  new Promise((resolve) => socket.once('close', () => resolve()));

interface Live {
  readonly machine: Machine;
  readonly program: RunningProgram;
  readonly socket: Socket;
  readonly user: string;
}

/** A user's own machine with a tunnel on which bytes are flowing. */
async function openLive(
  t: ExecutionContext<Context>,
  user: string,
  group = 'staff',
): Promise<Live> {
  const machine = await t.context.deployment.enrol(user, [group]);
  const { program, port } = await t.context.deployment.connect(machine, 'ticker');
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => undefined);
  await once(socket, 'data');
  return { machine, program, socket, user };
}

/** The tunnel's end as the user sees it, when both sockets have ended with an error rather than a clean end. */
async function assertCut(
  t: ExecutionContext<Context>,
  live: Live,
  act: () => Promise<unknown>,
): Promise<Record<string, unknown>> {
  let isClean = false;
  live.socket.once('end', () => (isClean = true));
  const appSockets = [...t.context.appSockets];
  const gone = Promise.all([live.socket, ...appSockets].map(closing));
  await act();
  const closed = await live.program.event('closed');
  await gone;
  t.false(isClean, 'the local socket ended as if the app had finished');
  t.is((await live.program.ended).code, 7);
  return closed;
}

/** What `--json` lists: one object per line. */
const json = (text: string): Record<string, unknown>[] =>
  text
    .trim()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

test.serial(
  'verification - a live tunnel is verified again and again, and its end moves on',
  async (t) => {
    const live = await openLive(t, 'verified');
    const first = await live.program.event('verified');
    const seen = live.program.lines.length;
    const second = await live.program.event('verified', seen);
    t.true(Date.parse(String(second['until'])) > Date.parse(String(first['until'])));
    live.socket.destroy();
    t.is((await live.program.stop('SIGINT')).code, 130);
  },
);

const revocations: readonly [
  name: string,
  act: (context: Context, live: Live) => Promise<unknown>,
][] = [
  [
    'revoke user',
    ({ deployment }, { user }) =>
      deployment.admin('revoke', 'user', user, '--reason', 'left_company'),
  ],
  ['user disable', ({ deployment }, { user }) => deployment.admin('user', 'disable', user)],
  [
    'revoke device',
    async ({ deployment }, { user }) => {
      const devices = json(await deployment.admin('device', 'list', '--json'));
      const id = devices.find((device) => device['user'] === user)?.['id'];
      return deployment.admin('revoke', 'device', String(id), '--reason', 'laptop_lost');
    },
  ],
  [
    'revoke session',
    async ({ deployment }, { user }) => {
      const sessions = json(await deployment.admin('session', 'list', '--json'));
      const id = sessions.find((session) => session['user'] === user)?.['id'];
      return deployment.admin('revoke', 'session', String(id), '--reason', 'sign_in_again');
    },
  ],
  [
    'revoke tunnel',
    async ({ deployment }, { user }) => {
      const tunnels = json(await deployment.admin('tunnel', 'list', '--json'));
      const id = tunnels.find((tunnel) => tunnel['user'] === user)?.['id'];
      return deployment.admin('revoke', 'tunnel', String(id), '--reason', 'incident');
    },
  ],
  [
    'group member remove',
    ({ deployment }, { user }) => deployment.admin('group', 'member', 'remove', 'staff', user),
  ],
  [
    'policy apply',
    ({ deployment }) =>
      deployment.applyPolicies({
        'none.cedar':
          '@id("none") permit (principal in Group::"nobody", action == Action::"connect", resource);',
      }),
  ],
  ['logout', (_context, { machine }) => machine.ztna('logout')],
];

for (const [name, act] of revocations) {
  test.serial(`${name} - cuts a live tunnel at both ends and tells the user why`, async (t) => {
    if (name === 'policy apply') t.teardown(() => t.context.deployment.applyPolicies(openPolicies));
    const live = await openLive(t, name.replaceAll(' ', '-'));
    const closed = await assertCut(t, live, () => act(t.context, live));
    t.log(`${name}: ${JSON.stringify(closed)}`);
    t.regex(String(closed['reason']), /^[a-z][a-z0-9_]+$/);
    t.regex(String(closed['code']), /^ERR_/);
  });
}

test.serial('group member add --until - the tunnel ends when the membership does', async (t) => {
  const live = await openLive(t, 'visitor', 'staff');
  await assertCut(t, live, () =>
    t.context.deployment.admin(
      'group',
      'member',
      'add',
      'staff',
      'visitor',
      '--until',
      new Date(Date.now() + 3_000).toISOString(),
    ),
  );
});

test.serial(
  'connector frozen - what reached it before the end is not let through once it thaws behind that',
  async (t) => {
    const { deployment, appSockets } = t.context;
    const live = await openLive(t, 'frozen');
    const [appSocket] = [...appSockets].slice(-1);
    if (!appSocket) throw new Error('no connection at the app');
    let received = '';
    appSocket.on('data', (chunk: Buffer) => (received += chunk.toString()));
    live.socket.write('before');
    while (received !== 'before') await once(appSocket, 'data');

    const frozen = deployment.connector.child;
    frozen.kill('SIGSTOP');
    t.teardown(() => frozen.kill('SIGCONT'));
    const frozenAtMs = performance.now();
    live.socket.write('behind'); // permitted as it is sent, and under way when permission ends
    await deployment.admin('user', 'disable', 'frozen');
    await live.program.event('closed');
    // Whatever it believed when it froze ends by then: that is what it is for.
    await delay(Math.max(0, longestLeaseMs - (performance.now() - frozenAtMs)));
    const gone = closing(appSocket);
    frozen.kill('SIGCONT');
    await gone;
    t.is(received, 'before');
  },
);

test.serial(
  'control plane cut off - both ends stop the tunnel by themselves when the lease is over, and it goes on when decided anew',
  async (t) => {
    const live = await openLive(t, 'partitioned');
    const { deployment } = t.context;
    let bytes = 0;
    live.socket.on('data', (chunk: Buffer) => (bytes += chunk.length));
    // SIGSTOP leaves every socket open, as a partition would: nothing arrives, nothing is refused.
    const supervisor = deployment.relay.child.pid ?? 0;
    const controlPlane = await controlPlaneOf(supervisor);
    process.kill(controlPlane, 'SIGSTOP');
    t.teardown(() => process.kill(controlPlane, 'SIGCONT'));
    const detached = await live.program.event('detached');
    t.is(detached['reason'], 'lease_expired');
    t.true(Date.parse(String(detached['until'])) > Date.now());
    await deployment.connector.errorLine(/tunnel_detached/);
    await deployment.connectorStatus(); // so that what was under way has arrived
    const frozenBytes = bytes; // of an app that says something every 5 ms
    t.like(await deployment.connectorStatus(), { tunnels: 1, detached: 1 });
    t.is(bytes, frozenBytes);
    process.kill(controlPlane, 'SIGCONT');
    await live.program.event('resumed');
    await once(live.socket, 'data');
    t.deepEqual(
      [...t.context.appSockets].filter((socket) => socket.destroyed),
      [],
    );
    live.socket.destroy();
    t.is((await live.program.stop('SIGINT')).code, 130);
  },
);

async function controlPlaneOf(supervisor: number): Promise<number> {
  const { commandLine, withDescendants } = await import('../bench/processes.ts');
  const found = withDescendants([supervisor]).find((pid) =>
    commandLine(pid).includes('control-plane/main'),
  );
  if (found === undefined) throw new Error('no control plane process');
  return found;
}
