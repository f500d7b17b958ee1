import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { URI } from 'otpauth';
import { auditHead, auditUntil } from '../support/audit-rows.ts';
import { Deployment, passwordOf, type Machine } from '../support/deployment.ts';
import { Terminal, terminalMissing } from '../support/terminal.ts';

interface Context {
  deployment: Deployment;
  server: Server;
}
const test = anyTest as TestFn<Context>;

const onTerminal = terminalMissing === undefined ? test.serial : test.serial.skip;
const why = terminalMissing === undefined ? '' : ` (skipped: ${terminalMissing})`;

const policyWhen = (condition: string) => ({
  'staff.cedar': `@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource) when { ${condition} };`,
});
const open = policyWhen('true');
const careful = policyWhen('context.authentication.mfa');

test.before('an app that answers what it is told, and a deployment', async (t) => {
  t.timeout(60_000);
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const target = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  t.context = {
    server,
    deployment: await Deployment.start({
      apps: [{ name: 'orders', target, health: 'off' }],
      policies: open,
    }),
  };
});

test.beforeEach(async (t) => t.context.deployment.applyPolicies(open));

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  t.context.server.close();
});

/** Sets one-time passwords up; each call of what it answers gives a code that was not used yet. */
async function withOtp(machine: Machine): Promise<() => string> {
  const adding = machine.start('mfa', 'add', '--otp-stdin');
  const totp = URI.parse(await adding.line(/^otpauth:/));
  let timestamp = Date.now() - 30_000; // of a step that is taken still, and so are the next two
  const next = (): string => {
    const code = totp.generate({ timestamp });
    timestamp += 30_000;
    return code;
  };
  adding.child.stdin.end(`${next()}\n`);
  if ((await adding.ended).code !== 0) throw new Error(adding.transcript());
  return next;
}

/** `ztna connect` on a terminal of its own. */
function connectOnTerminal(t: ExecutionContext<Context>, { env }: Machine): Terminal {
  const { ztna } = t.context.deployment.commands;
  const terminal = new Terminal(ztna, ['connect', 'orders', '--listen', '0'], env);
  t.teardown(() => terminal.program.stop('SIGKILL'));
  return terminal;
}

const addressPattern = /is at 127\.0\.0\.1:\d+/;

async function dial(t: ExecutionContext<Context>, port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.on('error', () => undefined);
  t.teardown(() => socket.destroy());
  await echo(socket, 'before');
  return socket;
}

/** Writes and waits until the app has sent it back. */
async function echo(socket: Socket, text: string): Promise<void> {
  socket.write(text);
  for (let heard = ''; heard !== text;) {
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    heard += chunk.toString();
  }
}

const portOf = ({ shown }: Terminal): number =>
  Number(/:(\d+)$/.exec(addressPattern.exec(shown)?.[0] ?? '')?.[1]);

onTerminal(
  `step-up - is asked for on the terminal, and one answer serves every tunnel of the device${why}`,
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const machine = await deployment.enrol('ada');
    const nextOtp = await withOtp(machine);
    const first = connectOnTerminal(t, machine);
    const second = connectOnTerminal(t, machine);
    const { program: script, port } = await deployment.connect(machine, 'orders');
    for (const terminal of [first, second]) await terminal.show(/open, until/);
    const sockets = await Promise.all(
      [portOf(first), portOf(second), port].map((each) => dial(t, each)),
    );

    const after = await auditHead(deployment);
    await deployment.applyPolicies(careful);
    t.like(await script.event('suspended'), { reason: 'step_up_needed' });
    await second.show(/password of ada/);
    const asked = await first.show(/password of ada \(Ctrl-D: not now\): /);
    first.type(`${passwordOf('ada')}\r`);
    const askedAgain = await first.show(/one-time password: /, asked);
    first.type(`${nextOtp()}\r`);
    await first.show(/signed in as ada/, askedAgain);
    await first.show(/the way is back; nothing was lost/, askedAgain);
    await second.show(/no answer is needed any more[^]*the way is back/);
    await script.event('resumed');
    await Promise.all(sockets.map((socket) => echo(socket, 'after')));

    for (const { shown } of [first, second]) {
      t.is(shown.split('password of ada').length, 2, 'asked once');
      t.false(shown.includes(passwordOf('ada')));
    }
    const signIns = await auditUntil(
      deployment,
      after,
      1,
      ({ action, outcome }) => action === 'session.sign_in' && outcome === 'ok',
    );
    t.is(signIns.length, 1);
    first.type('\x03');
    t.is((await first.program.ended).code, 130);
  },
);

onTerminal(
  `step-up - a connect that is refused for it asks, and goes on with the answer${why}`,
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const machine = await deployment.enrol('bob');
    const nextOtp = await withOtp(machine);
    await deployment.applyPolicies(careful);
    const terminal = connectOnTerminal(t, machine);
    await terminal.show(/a second factor is needed \[ERR_IDENTITY_OTP_NEEDED\]/);
    let from = await terminal.show(/password of bob/);
    terminal.type('not-this-one\r');
    from = await terminal.show(/is wrong[^]*password of bob/, from);
    terminal.type(`${passwordOf('bob')}\r`);
    from = await terminal.show(/one-time password: /, from);
    terminal.type(`${nextOtp()}\r`);
    await terminal.show(/open, until/, from);
    await t.notThrowsAsync(dial(t, portOf(terminal)));
  },
);

onTerminal(`step-up - Ctrl-D refuses the answer, and connect ends with exit 4${why}`, async (t) => {
  t.timeout(120_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol('cleo');
  await withOtp(machine);
  await deployment.applyPolicies(careful);
  const terminal = connectOnTerminal(t, machine);
  await terminal.show(/password of cleo/);
  terminal.type('\x04');
  await terminal.show(/ERR_IDENTITY_OTP_NEEDED\][^]*fix: .*ztna login/);
  t.is((await terminal.program.ended).code, 4);
});

onTerminal(
  `step-up - connect behind its shell asks nothing and is not stopped for it${why}`,
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const machine = await deployment.enrol('dora');
    const nextOtp = await withOtp(machine);
    const { ztna } = deployment.commands;
    // A job behind its shell outlives its terminal, but for this trap.
    const command = `set -m; trap 'kill %1; exit' HUP INT; '${ztna}' connect orders --listen 0 & wait`;
    const terminal = new Terminal('/bin/sh', ['-c', command], machine.env);
    t.teardown(() => terminal.program.stop('SIGKILL'));
    await terminal.show(/open, until/);
    const socket = await dial(t, portOf(terminal));
    await deployment.applyPolicies(careful);
    await terminal.show(/suspended: step up needed[^]*fix: .*ztna login/);
    const login = machine.start('login', '--password-stdin', '--otp', nextOtp());
    login.child.stdin.end(`${passwordOf('dora')}\n`);
    t.is((await login.ended).code, 0, login.transcript());
    await terminal.show(/the way is back/);
    await echo(socket, 'after');
    t.false(terminal.shown.includes('password of'));
    const gone = new Promise((resolve) => socket.once('close', resolve));
    terminal.type('\x03'); // to the shell
    await gone;
  },
);

test.serial(
  'step-up - without a terminal the message says ztna login, and exit is 4',
  async (t) => {
    t.timeout(60_000);
    const { deployment } = t.context;
    const machine = await deployment.enrol('emma');
    await deployment.applyPolicies(careful);
    const refused = await machine.ztna('connect', 'orders', '--listen', '0');
    t.is(refused.code, 4);
    t.regex(refused.stderr, /fix: sign in with a one-time password: ztna login/);
  },
);
