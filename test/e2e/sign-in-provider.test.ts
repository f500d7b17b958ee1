import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { Deployment, overlayYaml, passwordOf, type Machine } from '../support/deployment.ts';
import { OidcServer } from '../support/oidc-server.ts';
import type { RunningProgram } from '../support/program.ts';
import type { Visit } from '../support/scripted-browser.ts';
import { shownIn } from '../support/sign-in-page.ts';
import { Terminal, terminalMissing } from '../support/terminal.ts';

interface Context {
  deployment: Deployment;
  provider: OidcServer;
  server: Server;
}
const test = anyTest as TestFn<Context>;

const onTerminal = terminalMissing === undefined ? test.serial : test.serial.skip;
const why = terminalMissing === undefined ? '' : ` (skipped: ${terminalMissing})`;

const policyWhen = (condition: string) => ({
  'staff.cedar': `@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource) when { ${condition} };`,
});

const person = (name: string, amr: readonly string[] = ['pwd']) => ({
  claims: {
    email: `${name}@example.com`,
    email_verified: true,
    preferred_username: name,
    groups: ['staff'],
  },
  amr,
});

test.before('an app, a provider, and a deployment where its people enrol themselves', async (t) => {
  t.timeout(60_000);
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const target = `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  const names = ['ada', 'bob', 'cleo', 'dora', 'emma', 'fred', 'gus', 'hal', 'ida', 'kim'];
  const people = Object.fromEntries(names.map((name) => [name, person(name)]));
  const deployment = await Deployment.start({
    apps: [{ name: 'orders', target, health: 'off' }],
    relayConfig: { enrolment: '{ mode: sso }' },
    env: { machine: { BROWSER: '/bin/true' } }, // the test is the person at it
    policies: policyWhen('true'),
  });
  const redirectUris = [`${deployment.url}/oidc/corp/callback`];
  const provider = await OidcServer.start({ people, redirectUris });
  t.context = { server, deployment, provider };
  await deployment.ask('provider.add', {
    name: 'corp',
    issuer: provider.issuer,
    clientId: provider.clientId,
    secret: provider.clientSecret,
    title: 'Example Corp',
    scopes: ['openid', 'profile', 'email', 'offline_access'],
    userClaim: 'preferred_username',
    groupsClaim: 'groups',
    ca: provider.caPem,
    allowPrivate: true,
  });
});

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  await t.context.provider.stop();
  t.context.server.close();
});

/** Has that person pass the pages from `url` on: the provider's where there is a choice. */
async function pass(t: ExecutionContext<Context>, who: string, url: string): Promise<Visit> {
  const browser = t.context.provider.browserOf(who);
  const page = await browser.follow(url);
  const choice = /href="(\/oidc\/corp\/begin[^"]*)"/.exec(page.text)?.[1];
  return choice === undefined
    ? page
    : browser.follow(new URL(choice.replaceAll('&amp;', '&'), page.url));
}

/** The page that a running command with `--json` asks its person to open. */
async function pageOf(program: RunningProgram): Promise<string> {
  return String((await program.event('sign_in'))['url']);
}

/** A machine that this person enrols by signing in. */
async function enrolled(t: ExecutionContext<Context>, who: string): Promise<Machine> {
  const { deployment } = t.context;
  const machine = deployment.machine();
  const enrolling = machine.start('enroll', deployment.url, '--json');
  const end = await pass(t, who, await pageOf(enrolling));
  t.is((await enrolling.ended).code, 0, enrolling.transcript());
  t.regex(end.text, /This machine is enrolled/);
  t.like(JSON.parse(enrolling.lines.at(-1) ?? ''), { user: who, signedIn: true, pending: false });
  return machine;
}

async function statusOf(machine: Machine): Promise<Record<string, unknown>> {
  return JSON.parse((await machine.ztna('status', '--json')).stdout) as Record<string, unknown>;
}

/** Writes and waits until the app has sent it back. */
async function echo(port: number): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1' });
  socket.write('hello');
  await once(socket, 'data');
  socket.destroy();
}

test.serial('enroll URL - one sign-in enrols the machine, signs in and opens apps', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const machine = await enrolled(t, 'ada');
  const { session } = (await statusOf(machine)) as { session: Record<string, unknown> };
  t.like(session, { user: 'ada', provider: 'corp', methods: ['pwd'] });
  const { port } = await deployment.connect(machine, 'orders');
  await t.notThrowsAsync(echo(port));
});

test.serial('enroll URL - runs the program that BROWSER names, with the page alone', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const [script, log] = [join(deployment.dir, 'browser'), join(deployment.dir, 'browser.log')];
  const play = new URL('../support/play-browser.ts', import.meta.url).pathname;
  await writeFile(script, `#!/bin/sh\nexec '${process.execPath}' '${play}' "$@"\n`, {
    mode: 0o700,
  });
  const env = { BROWSER: script, TEST_PERSON: 'hal', TEST_BROWSER_LOG: log };
  const machine = deployment.machine(env);
  const enrolling = await machine.ztna('enroll', deployment.url);
  t.is(enrolling.code, 0, enrolling.stderr);
  t.regex(enrolling.stdout, /^dev_\w+\n$/);
  t.regex(await readFile(log, 'utf8'), /^1 127\.0\.0\.1:\d+ 200$/m);
});

test.serial('enroll URL - a page of another machine ends with a code for this one', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const machine = deployment.machine();
  const args = ['enroll', deployment.url, '--no-browser', '--code-stdin'];
  const enrolling = machine.start(...args);
  const end = await pass(t, 'bob', await enrolling.errorLine(/^https:/));
  const code = shownIn(end, 'code');
  // Whoever else sees the code has no use for it.
  const thief = deployment.machine().start('enroll', '-', '--password-stdin');
  thief.child.stdin.end(`${code}\ncorrect-horse-of-a-thief\n`);
  t.not((await thief.ended).code, 0);
  enrolling.child.stdin.end(`${code}\n`);
  t.is((await enrolling.ended).code, 0, enrolling.transcript());
});

test.serial('login - goes to the provider of before, and comes back signed in', async (t) => {
  t.timeout(60_000);
  const machine = await enrolled(t, 'cleo');
  t.is((await machine.ztna('logout')).code, 0);
  t.is((await machine.ztna('status')).code, 4);
  const bare = await machine.ztna('login');
  t.is(bare.code, 2);
  t.regex(bare.stderr, /ztna login --provider corp/);
  const login = machine.start('login', '--provider', 'corp', '--json');
  await pass(t, 'cleo', await pageOf(login));
  t.is((await login.ended).code, 0, login.transcript());
  const { code, stdout } = await machine.ztna('status');
  t.is(code, 0);
  t.regex(stdout, /^signed in {4}cleo at corp by pwd, until/m);
});

test.serial(
  'login - whom the provider does not let in is not signed in, and hears so at once',
  async (t) => {
    t.timeout(60_000);
    const machine = await enrolled(t, 'ida');
    const { session: before } = await statusOf(machine);
    for (const who of ['nobody', 'bob']) {
      const login = machine.start('login', '--provider', 'corp', '--json');
      await pass(t, who, await pageOf(login));
      t.is((await login.ended).code, 4);
      t.regex(login.transcript(), /the sign-in was refused: [a-z ]+/);
    }
    t.like(await statusOf(machine), { session: { id: (before as { id: string }).id } });
  },
);

test.serial(
  'login --device-code - shows address, code and QR code on standard error',
  async (t) => {
    t.timeout(60_000);
    const machine = await enrolled(t, 'dora');
    await machine.ztna('logout');
    const login = machine.start('login', '--device-code');
    const url = await login.errorLine(/^https:/);
    const typed = await login.errorLine(/compare or type the code: /);
    t.regex(typed, /: [A-Z0-9-]{6,}$/);
    t.true(
      login.errorLines.some((line) => line.includes('█')),
      'a QR code',
    );
    await t.context.provider.confirmDevice(url, 'dora');
    t.is((await login.ended).code, 0, login.transcript());
    t.deepEqual(login.lines, []);
    t.true((await statusOf(machine))['isSignedIn']);
  },
);

test.serial('logout - ends the session here, and says where the provider’s ends', async (t) => {
  t.timeout(60_000);
  const machine = await enrolled(t, 'emma');
  const { code, stderr } = await machine.ztna('logout');
  t.is(code, 0);
  t.regex(
    stderr,
    /to end the session at your provider, too, open:\nhttps:\/\/localhost:\d+\/session\/end\?/,
  );
  t.false((await statusOf(machine))['isSignedIn']);
});

onTerminal(`login - asks where to sign in, once, and gives up with Ctrl-C${why}`, async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol('zoe'); // who has a password here
  const open = (...args: string[]): Terminal => {
    const terminal = new Terminal(deployment.commands.ztna, ['login', ...args], machine.env);
    t.teardown(() => terminal.program.stop('SIGKILL'));
    return terminal;
  };
  const first = open();
  await first.show(/corp +Example Corp[^]*local +a password[^]*sign in at \[corp\]: /);
  first.type('local\r');
  await first.show(/user \[zoe\]: /);
  first.type('\r');
  await first.show(/password: /);
  first.type(`${passwordOf('zoe')}\r`);
  await first.show(/signed in as zoe, until/);
  t.is((await first.program.ended).code, 0);
  const second = open();
  await second.show(/user \[zoe\]: /);
  t.notRegex(second.shown, /sign in at/);
  second.type('\x03');
  t.is((await second.program.ended).code, 130);
  const third = open('--browser');
  await shownPage(third);
  third.type('\x03');
  t.is((await third.program.ended).code, 130);
});

/** Waits for the page that a command on a terminal has its person open. */
async function shownPage(terminal: Terminal): Promise<string> {
  await terminal.show(/https:\S+\/sign-in\/\S+\r?\n/);
  return /https:\S+\/sign-in\/[\w-]+/.exec(terminal.shown)?.[0] ?? '';
}

onTerminal(
  `step-up - connect opens the provider’s page, and one sign-in serves every tunnel${why}`,
  async (t) => {
    t.timeout(120_000);
    const { deployment, provider } = t.context;
    const { ztna } = deployment.commands;
    const machine = await enrolled(t, 'fred');
    const args = ['connect', 'orders', '--listen', '0'];
    const first = new Terminal(ztna, args, machine.env);
    await first.show(/open, until/);
    const second = new Terminal(ztna, args, machine.env);
    await second.show(/open, until/);
    for (const { program } of [first, second]) t.teardown(() => program.stop('SIGKILL'));
    t.teardown(() => deployment.applyPolicies(policyWhen('true')));
    await deployment.applyPolicies(policyWhen('context.authentication.mfa'));
    for (const terminal of [first, second]) {
      await terminal.show(/suspended: step up needed[^]*fix: [^\n]*ztna login --provider corp/);
    }
    provider.people.set('fred', person('fred', ['pwd', 'otp', 'mfa']));
    const asking = await Promise.race(
      [first, second].map((each) => shownPage(each).then(() => each)),
    );
    await pass(t, 'fred', await shownPage(asking));
    for (const terminal of [first, second])
      await terminal.show(/the way is back; nothing was lost/);
    const pages = [first, second].filter(({ shown }) => shown.includes('/sign-in/'));
    t.is(pages.length, 1, 'one page for both');
  },
);

onTerminal(
  `step-up - connect --stdio opens the page without a word on standard output${why}`,
  async (t) => {
    t.timeout(120_000);
    const { deployment, provider } = t.context;
    const { ztna } = deployment.commands;
    const machine = await enrolled(t, 'gus');
    t.teardown(() => deployment.applyPolicies(policyWhen('true')));
    await deployment.applyPolicies(policyWhen('context.authentication.mfa'));
    provider.people.set('gus', person('gus', ['pwd', 'otp', 'mfa']));
    const out = join(machine.home, 'out');
    const command = `printf ping | '${ztna}' connect orders --stdio > '${out}'; echo "ended with $?:$(cat '${out}')"`;
    const terminal = new Terminal('/bin/sh', ['-c', command], machine.env);
    t.teardown(() => terminal.program.stop('SIGKILL'));
    await pass(t, 'gus', await shownPage(terminal));
    await terminal.show(/ended with 0:ping\r?\n/);

    await machine.ztna('logout');
    const again = new Terminal('/bin/sh', ['-c', command], machine.env);
    t.teardown(() => again.program.stop('SIGKILL'));
    await again.show(/sign in first \[ERR_IDENTITY_SIGN_IN_NEEDED\]/);
    await pass(t, 'gus', await shownPage(again));
    await again.show(/ended with 0:ping\r?\n/);
  },
);

onTerminal(
  `step-up - connect --stdio that is held back opens the page, and loses nothing${why}`,
  async (t) => {
    t.timeout(120_000);
    const { deployment, provider } = t.context;
    const { ztna } = deployment.commands;
    const machine = await enrolled(t, 'kim');
    const out = join(machine.home, 'out');
    const input = '( printf one; head -n 1 < /dev/tty > /dev/null; printf two )';
    const command = `${input} | '${ztna}' connect orders --stdio | tee /dev/tty > '${out}'; echo "got $(cat '${out}')"`;
    const terminal = new Terminal('/bin/sh', ['-c', command], machine.env);
    t.teardown(() => terminal.program.stop('SIGKILL'));
    await terminal.show(/one/);
    t.teardown(() => deployment.applyPolicies(policyWhen('true')));
    await deployment.applyPolicies(policyWhen('context.authentication.mfa'));
    provider.people.set('kim', person('kim', ['pwd', 'otp', 'mfa']));
    await pass(t, 'kim', await shownPage(terminal));
    const from = await terminal.show(/the way is back; nothing was lost/);
    terminal.type('\r');
    await terminal.show(/got onetwo\r?\n/, from);
  },
);

test.serial('enroll URL - a machine that has to be approved is not signed in before', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  await deployment.relay.stop();
  await overlayYaml(join(deployment.relayDir, 'relay.yaml'), {
    enrolment: '{ mode: sso-approve, maxDevicesPerUser: 9 }',
  });
  await deployment.startRelay();
  const machine = deployment.machine();
  const enrolling = machine.start('enroll', deployment.url, '--json');
  const end = await pass(t, 'ada', await pageOf(enrolling));
  t.regex(end.text, /waits for approval/);
  t.is((await enrolling.ended).code, 0, enrolling.transcript());
  const { device, pending } = JSON.parse(enrolling.lines.at(-1) ?? '') as Record<string, unknown>;
  t.true(pending);
  const waiting = await machine.ztna('status');
  t.is(waiting.code, 6);
  t.regex(waiting.stdout, /^signed in {4}no: this device waits for an administrator/m);
  await deployment.admin('device', 'approve', String(device));
  const login = machine.start('login', '--provider', 'corp', '--json');
  await pass(t, 'ada', await pageOf(login));
  t.is((await login.ended).code, 0, login.transcript());
  t.is((await machine.ztna('status')).code, 0);
});
