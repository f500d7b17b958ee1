import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import anyTest, { type TestFn } from 'ava';
import { Deployment, passwordOf, type Machine } from '../support/deployment.ts';
import { Exchange } from '../support/exchange.ts';
import { runProgram, type RunningProgram } from '../support/program.ts';
import { ScriptedBrowser } from '../support/scripted-browser.ts';
import { passSignInPage, shownIn } from '../support/sign-in-page.ts';

interface Context {
  deployment: Deployment;
  server: Server;
  /** Takes the app's side of the connection that was made last. */
  accepted: () => Promise<Socket>;
}
const test = anyTest as TestFn<Context>;

test.before('an app, and a deployment whose machines have a browser', async (t) => {
  t.timeout(60_000);
  const server = createServer({ allowHalfOpen: true });
  const waiting: Socket[] = [];
  const accepting: ((socket: Socket) => void)[] = [];
  server.on('connection', (socket) => {
    const take = accepting.shift();
    if (take) take(socket);
    else waiting.push(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const target = `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  t.context = {
    server,
    accepted: async () => waiting.shift() ?? new Promise((resolve) => accepting.push(resolve)),
    deployment: await Deployment.start({
      apps: [{ name: 'orders', target, health: 'off' }],
      env: { machine: { BROWSER: '/bin/true' } }, // the test is the person at it
    }),
  };
});

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  t.context.server.close();
});

/** The page that a running `ztna login --json` asks its person to open. */
async function pageOf(login: RunningProgram): Promise<string> {
  return String((await login.event('sign_in'))['url']);
}

const passwordFor = (user: string) => ({ user, password: passwordOf(user) });

async function statusOf(machine: Machine): Promise<Record<string, unknown>> {
  const { stdout } = await machine.ztna('status', '--json');
  return JSON.parse(stdout) as Record<string, unknown>;
}

const sessionIdOf = async (machine: Machine): Promise<unknown> =>
  ((await statusOf(machine))['session'] as Record<string, unknown> | null)?.['id'];

const closeOf = (socket: Socket): Promise<unknown> =>
  new Promise((resolve) => {
    socket
      .on('error', () => undefined)
      .once('close', resolve)
      .resume();
  });

test('sign-in - with this machine’s browser, which comes back to the command', async (t) => {
  t.timeout(60_000);
  const machine = await t.context.deployment.enrol('ada');
  const before = await sessionIdOf(machine);
  const login = machine.start('login', '--browser', '--json');
  const end = await passSignInPage(new ScriptedBrowser(), await pageOf(login), passwordFor('ada'));
  t.is((await login.ended).code, 0, login.transcript());
  t.is(end.url.hostname, '127.0.0.1');
  t.regex(end.text, /You are signed in/);
  t.like(JSON.parse(login.lines.at(-1) ?? ''), { user: 'ada', provider: 'local' });
  t.not(await sessionIdOf(machine), before);
});

test('sign-in - on another machine, whose page ends with a ticket for the terminal', async (t) => {
  t.timeout(60_000);
  const machine = await t.context.deployment.enrol('bob');
  const login = machine.start('login', '--no-browser', '--ticket-stdin');
  const url = await login.errorLine(/^https:/);
  t.true(
    login.errorLines.some((line) => line.includes('█')),
    'a QR code',
  );
  const end = await passSignInPage(new ScriptedBrowser(), url, passwordFor('bob'));
  login.child.stdin.end(`${shownIn(end, 'ticket')}\n`);
  t.is((await login.ended).code, 0, login.transcript());
  t.regex(login.transcript(), /signed in as bob, until/);
  t.deepEqual(login.lines, [], 'nothing on standard output');
});

test('sign-in - a link that was sent to another person leads nowhere', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol('cleo');
  await deployment.enrol('victor');
  const before = await sessionIdOf(machine);
  const login = machine.start('login', '--browser', '--json');
  const end = await passSignInPage(
    new ScriptedBrowser(),
    await pageOf(login),
    passwordFor('victor'),
  );
  t.is(end.url.hostname, new URL(deployment.url).hostname);
  t.notRegex(end.url.href + end.text, /ticket/i);
  await login.stop('SIGKILL');
  t.is(await sessionIdOf(machine), before);
});

test('login - without a terminal and without a word how, says what to do', async (t) => {
  t.timeout(60_000);
  const machine = await t.context.deployment.enrol('dora');
  const { code, stdout, stderr } = await machine.ztna('login');
  t.is(code, 2);
  t.is(stdout, '');
  t.regex(stderr, /\[ERR_CONFIG_USAGE\]\nfix: say it: ztna login --password-stdin/);
  t.is((await machine.ztna('login', '--provider', 'nowhere')).code, 2);
});

test('sign-in - again while bytes flow loses none of them', async (t) => {
  t.timeout(120_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol('emma');
  const { program, port } = await deployment.connect(machine, 'orders');
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const exchange = new Exchange(socket, await t.context.accepted());
  t.teardown(() => exchange.destroy());
  const running = exchange.reach(16 * 1_048_576);
  for (let time = 0; time < 2; time++) {
    await exchange.goOn();
    const login = machine.start('login', '--browser', '--json');
    await passSignInPage(new ScriptedBrowser(), await pageOf(login), passwordFor('emma'));
    t.is((await login.ended).code, 0, login.transcript());
    await exchange.goOn();
  }
  await running;
  const { near, far } = await exchange.finish();
  t.true(near.isClean && far.isClean, `${String(near.error)} ${String(far.error)}`);
  t.is(near.sent, far.received);
  t.is(far.sent, near.received);
  t.false(program.lines.some((line) => line.includes('"event":"closed"')));
});

test('logout - ends live tunnels, and status says so', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol('fred');
  t.like(await statusOf(machine), { isOnline: true, isSignedIn: true });
  const { program, port } = await deployment.connect(machine, 'orders');
  const socket = connect({ port, host: '127.0.0.1' });
  const far = await t.context.accepted();
  const gone = Promise.all([socket, far].map(closeOf));
  t.is((await machine.ztna('logout')).code, 0);
  t.like(await program.event('closed'), { code: 'ERR_TUNNEL_REVOKED', reason: 'signed_out' });
  await gone;
  t.is((await program.ended).code, 7);
  const { code, stdout } = await machine.ztna('status');
  t.is(code, 4);
  t.regex(stdout, /^signed in {4}no; run: ztna login$/m);
  t.like(await statusOf(machine), { isSignedIn: false, session: null });
});

test('status - tells what is left of a sign-in, and how it was made', async (t) => {
  t.timeout(60_000);
  const machine = await t.context.deployment.enrol('gus');
  const { code, stdout } = await machine.ztna('status');
  t.is(code, 0);
  t.regex(stdout, /^signed in {4}gus by password, until \S+ \(\d+ h \d+ min left\)$/m);
});

test('status - does not say that anybody is signed in while the relay cannot be asked', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol('ida');
  const asked = (...args: string[]) =>
    runProgram(deployment.commands.ztna, ['status', ...args], {
      env: { ...machine.env, ZTNA_RELAY_ADDRESS: '127.0.0.1:1' }, // nobody is there
    });
  const { code, stdout } = await asked();
  t.is(code, 3);
  t.regex(stdout, /^signed in {4}unknown while offline$/m);
  const told = JSON.parse((await asked('--json')).stdout) as object;
  t.like(told, { isOnline: false, isSignedIn: null, session: null });
});

test('devices - are listed, and one of them is ended from another', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const laptop = await deployment.enrol('hal');
  const desktop = await deployment.enrol('hal');
  const { program } = await deployment.connect(desktop, 'orders');
  const listed = (await laptop.ztna('devices', 'list', '--json')).stdout.trim().split('\n');
  const rows = listed.map((line) => JSON.parse(line) as Record<string, unknown>);
  t.is(rows.length, 2);
  const other = rows.find(({ isThis }) => isThis === false);
  t.like(other, { isOnline: true, state: 'enrolled' });
  const revoked = await laptop.ztna('devices', 'revoke', String(other?.['device']));
  t.is(revoked.code, 0, revoked.stderr);
  t.is((await program.ended).code, 7);
  const { code, stdout } = await desktop.ztna('status');
  t.is(code, 7);
  t.regex(stdout, /^signed in {4}no: /m);
  t.is(
    (await laptop.ztna('devices', 'revoke', String(rows.find((row) => row['isThis'])?.['device'])))
      .code,
    2,
  );
});
