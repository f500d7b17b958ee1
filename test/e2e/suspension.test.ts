import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { auditHead, auditUntil, type AuditRow } from '../support/audit-rows.ts';
import { Deployment, freePort, passwordOf, type Machine } from '../support/deployment.ts';
import { Exchange } from '../support/exchange.ts';
import { runProgram, type RunningProgram } from '../support/program.ts';

/** What goes each way in a transfer that is held back five times, and how many such transfers; 1024 and 5 make a long run. */
const defaultMib = 24;
const mib = Number(process.env['ZTNA_TEST_SUSPEND_MIB'] ?? defaultMib);
const transfers = Number(process.env['ZTNA_TEST_SUSPEND_TRANSFERS'] ?? 1);
const freezes = 5;
const maxAgeMs = 3_000;

interface Context {
  deployment: Deployment;
  server: Server;
  /** Takes the app's side of the connection that was made last. */
  accepted: () => Promise<Socket>;
  /** The file whose absence makes this machine unhealthy. */
  mark: string;
  adminPort: number;
}
const test = anyTest as TestFn<Context>;

test.before('an app, and a deployment that asks for a mark on the device', async (t) => {
  t.timeout(60_000);
  const dir = await mkdtemp(join(tmpdir(), 'ztna-suspension-'));
  const mark = join(dir, 'mark');
  const server = createServer({ allowHalfOpen: true });
  const accepting: ((socket: Socket) => void)[] = [];
  const waiting: Socket[] = [];
  server.on('connection', (socket) => {
    const take = accepting.shift();
    if (take) take(socket);
    else waiting.push(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const target = `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  const adminPort = await freePort();
  const deployment = await Deployment.start({
    apps: [
      { name: 'lasting', target, health: 'off' },
      { name: 'brief', target, health: 'off' },
    ],
    relayConfig: {
      adminListen: `"127.0.0.1:${String(adminPort)}"`,
      posture: `{ maxAge: 3s, checks: [{ id: mark, file: ${mark} }] }`,
      apps: '{ brief: { verification: { holdFor: 2s } } }',
    },
    policies: {
      'staff.cedar':
        '@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource) when { context.posture.mark == "on" };',
    },
  });
  const accepted = async (): Promise<Socket> =>
    waiting.shift() ?? new Promise((resolve) => accepting.push(resolve));
  t.context = { deployment, server, accepted, mark, adminPort };
});

test.beforeEach(async (t) => writeFile(t.context.mark, ''));

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  t.context.server.close();
  await rm(join(t.context.mark, '..'), { recursive: true, force: true });
});

interface Live {
  readonly user: string;
  readonly machine: Machine;
  readonly program: RunningProgram;
  readonly port: number;
  readonly exchange: Exchange;
}

/** A user's own machine with a tunnel in which bytes go both ways. */
async function openLive(
  t: ExecutionContext<Context>,
  user: string,
  app = 'lasting',
): Promise<Live> {
  const { deployment } = t.context;
  const machine = await deployment.enrol(user);
  const { program, port } = await deployment.connect(machine, app);
  t.teardown(() => program.stop('SIGKILL'));
  return { user, machine, program, port, exchange: await openExchange(t, port) };
}

/** One connection through the tunnel, in which bytes go both ways. */
async function openExchange(t: ExecutionContext<Context>, port: number): Promise<Exchange> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const exchange = new Exchange(socket, await t.context.accepted());
  t.teardown(() => exchange.destroy());
  await exchange.goOn();
  return exchange;
}

const eventsOf = ({ lines }: RunningProgram, from = 0): Record<string, unknown>[] =>
  lines.slice(from).map((line) => JSON.parse(line) as Record<string, unknown>);

const countOf = (program: RunningProgram, name: string, from = 0): number =>
  eventsOf(program, from).filter(({ event }) => event === name).length;

const isCut = (by: 'connector' | 'relay') => (row: AuditRow) =>
  row.action === 'tunnel.cut' &&
  row.actor.startsWith(`${by}:`) &&
  row.details['what'] === 'suspend';

interface Frozen {
  readonly suspended: Record<string, unknown>;
  /** From the decision to the last byte that the connector let pass; 0 when none passed after it. */
  readonly lastByteMs: number;
  /** The same from the moment in which the mark was taken away, which the device has to notice first. */
  readonly noticedMs: number;
}

/** Takes the mark away and waits until the tunnel is held back, and nothing of what is still being written arrives. */
async function freeze(
  t: ExecutionContext<Context>,
  live: Pick<Live, 'program' | 'exchange'>,
): Promise<Frozen> {
  const { deployment, mark } = t.context;
  const { program, exchange } = live;
  let from = program.lines.length;
  const after = await auditHead(deployment);
  const takenAtMs = Date.now(); // the clock that the relay goes by
  await rm(mark);
  for (;;) {
    // A machine too busy to tell of itself in time is held back for that, before the mark is missed.
    const line = await program.line(/"event":"suspended","reason":"posture_unhealthy"/, from);
    const suspended = JSON.parse(line) as Record<string, unknown>;
    from = program.lines.length;
    const [cut] = await auditUntil(deployment, after, 1, isCut('connector')); // so that what was under way has arrived
    const frozen = exchange.arrived;
    t.like(await deployment.connectorStatus(), { tunnels: 1, detached: 1 });
    const arrived = exchange.arrived;
    if (countOf(program, 'resumed', from) > 0) continue;
    t.deepEqual(arrived, frozen);
    const [decided] = await auditUntil(
      deployment,
      after,
      1,
      ({ action }) => action === 'tunnel.suspend',
    );
    const lastByteAtMs = Number(cut?.details['lastByteAtMs']);
    return {
      suspended,
      lastByteMs: Math.max(0, lastByteAtMs - Number(decided?.atMs)),
      noticedMs: lastByteAtMs - takenAtMs,
    };
  }
}

async function assertWhole(t: ExecutionContext<Context>, exchange: Exchange) {
  const { near, far } = await exchange.finish();
  t.like(near, { isClean: true, error: undefined, received: far.sent });
  t.like(far, { isClean: true, error: undefined, received: near.sent });
}

async function assertUnhurt(t: ExecutionContext<Context>, { program, exchange }: Live) {
  await assertWhole(t, exchange);
  t.is(countOf(program, 'closed'), 0);
  t.is((await program.stop('SIGINT')).code, 130);
}

test.serial(
  'posture - bytes freeze while it is unhealthy, and go on where they were once it is mended, again and again',
  async (t) => {
    t.timeout(600_000 * transfers);
    const isUsual = mib === defaultMib && transfers === 1;
    const more = isUsual
      ? '; ZTNA_TEST_SUSPEND_MIB and ZTNA_TEST_SUSPEND_TRANSFERS ask for more'
      : '';
    t.log(`${String(transfers)} × ${String(mib)} MiB each way${more}`);
    const { mark } = t.context;
    const live = await openLive(t, 'ada');
    const { program, port } = live;
    const fixes = new Set<string>();
    const cuts: Frozen[] = [];
    let { exchange } = live;
    for (let transfer = 0; transfer < transfers; transfer++) {
      if (transfer > 0) {
        await assertWhole(t, exchange);
        exchange = await openExchange(t, port);
      }
      for (let done = 0; done < freezes; done++) {
        await exchange.reach((mib * 1_048_576 * (done + 1)) / freezes);
        const frozen = await freeze(t, { program, exchange });
        cuts.push(frozen);
        const { suspended } = frozen;
        t.is(suspended['reason'], 'posture_unhealthy');
        t.true(Date.parse(String(suspended['until'])) > Date.now());
        fixes.add(String(suspended['fix']));
        const from = program.lines.length;
        await writeFile(mark, '');
        await program.event('resumed', from);
        await exchange.goOn();
      }
    }
    const most = (of: (cut: Frozen) => number) => String(Math.max(...cuts.map(of)));
    t.log(
      `${String(cuts.length)} freezes; last byte at most ${most((cut) => cut.lastByteMs)} ms after the decision, ${most((cut) => cut.noticedMs)} ms after what it was decided for`,
    );
    t.true([...fixes].some((fix) => fix.includes('mark')));
    await assertUnhurt(t, { ...live, exchange });
  },
);

test.serial('posture not mended - connections are reset when the hold time is over', async (t) => {
  t.timeout(60_000);
  const { program, exchange } = await openLive(t, 'bob', 'brief');
  const from = program.lines.length;
  await rm(t.context.mark);
  await program.event('suspended', from);
  const closed = await program.event('closed', from);
  t.like(closed, { reason: 'suspension_over', code: 'ERR_POSTURE_UNHEALTHY' });
  const { near, far } = await exchange.ended();
  t.like(near, { isClean: false, error: 'ECONNRESET' });
  t.like(far, { isClean: false, error: 'ECONNRESET' });
  t.is((await program.ended).code, 6);
});

test.serial(
  'device fallen silent - its tunnel stops with the age of its posture, and nothing is lost when it is back',
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const live = await openLive(t, 'cleo');
    const { program, exchange } = live;
    const after = await auditHead(deployment);
    const pid = program.child.pid ?? 0;
    process.kill(pid, 'SIGSTOP');
    t.teardown(() => program.child.kill('SIGCONT'));
    const stoppedAtMs = Date.now(); // the clock that the relay goes by, and no posture is newer
    const [suspend] = await auditUntil(
      deployment,
      after,
      1,
      ({ action }) => action === 'tunnel.suspend',
    );
    const [cut] = await auditUntil(deployment, after, 1, isCut('connector'));
    const frozen = exchange.far.arrivedBytes;
    t.like(await deployment.connectorStatus(), { tunnels: 1, detached: 1 });
    t.is(exchange.far.arrivedBytes, frozen);
    const from = program.lines.length;
    program.child.kill('SIGCONT');
    t.is(suspend?.details['reason'], 'posture_stale');
    t.regex(String(suspend?.details['fix']), /the device has not reported for \d+ s/);
    const lastByteAtMs = Number(cut?.details['lastByteAtMs']);
    t.log(
      `after the last posture at the latest: suspended ${Number(suspend?.atMs) - stoppedAtMs} ms, last byte ${lastByteAtMs - stoppedAtMs} ms`,
    );
    t.true(lastByteAtMs > stoppedAtMs);
    t.true(lastByteAtMs - stoppedAtMs <= maxAgeMs + 1_000);
    await program.event('resumed', from);
    await exchange.goOn();
    await assertUnhurt(t, live);
  },
);

test.serial('login - signing in anew keeps a live tunnel', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const live = await openLive(t, 'dora');
  const { program, exchange, machine, user } = live;
  const from = program.lines.length;
  const login = await runProgram(deployment.commands.ztna, ['login', '--password-stdin'], {
    env: machine.env,
    input: `${passwordOf(user)}\n`,
  });
  t.is(login.code, 0, login.stderr);
  await program.event('resumed', from);
  await exchange.goOn();
  t.log(eventsOf(program, from).map(({ event, reason }) => [event, reason].join(' ')));
  await assertUnhurt(t, live);
});

test.serial('revoke device - ends a tunnel that is held back, too', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const live = await openLive(t, 'emma');
  const { program, exchange, user } = live;
  await freeze(t, live);
  const devices = (await deployment.admin('device', 'list', '--json')).trim().split('\n');
  const device = devices
    .map((line) => JSON.parse(line) as { id: string; user: string })
    .find((row) => row.user === user);
  const from = program.lines.length;
  await deployment.admin('revoke', 'device', String(device?.id), '--reason', 'laptop_lost');
  const closed = await program.event('closed', from);
  t.log(JSON.stringify(closed));
  t.is(closed['code'], 'ERR_TUNNEL_REVOKED');
  const { near, far } = await exchange.ended();
  t.like(near, { isClean: false, error: 'ECONNRESET' });
  t.like(far, { isClean: false, error: 'ECONNRESET' });
  t.is((await program.ended).code, 7);
});

test.serial(
  'receipts - connector and relay say of suspensions that they cut, and how soon is counted',
  async (t) => {
    t.timeout(60_000);
    const { deployment, adminPort } = t.context;
    const suspends = await auditUntil(
      deployment,
      0,
      freezes,
      ({ action, user }) => action === 'tunnel.suspend' && user === 'ada',
    );
    t.true(suspends.length >= freezes);
    for (const row of suspends) {
      t.like(row, { app: 'lasting', outcome: 'ok', details: { reason: 'posture_unhealthy' } });
    }
    const ofConnector = await auditUntil(deployment, 0, freezes, isCut('connector'));
    const ofRelay = await auditUntil(deployment, 0, freezes, isCut('relay'));
    t.log(`receipts: connector ${ofConnector.length}, relay ${ofRelay.length}`);
    t.true(ofConnector.length >= freezes);
    t.true(ofRelay.length >= freezes);
    const metrics = await (await fetch(`http://127.0.0.1:${String(adminPort)}/metrics`)).text();
    for (const by of ['connector', 'relay']) {
      const line = metrics
        .split('\n')
        .find(
          (text) =>
            text.startsWith('ztna_revocation_seconds_count{') &&
            text.includes('trigger="posture"') &&
            text.includes(`by="${by}"`),
        );
      t.true(Number(line?.split(' ').at(-1)) >= 1, `${by}: ${line ?? 'no line'}`);
    }
  },
);
