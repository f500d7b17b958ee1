import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import anyTest, { type TestFn } from 'ava';
import { URI } from 'otpauth';
import type { Browser, Page } from 'playwright-core';
import {
  addAuthenticator,
  missingBrowser,
  openBrowser,
  openPage,
} from '../integration/pages/browser.ts';
import { Deployment, passwordOf, type Machine } from '../support/deployment.ts';
import { runProgram } from '../support/program.ts';
import { Terminal, terminalMissing } from '../support/terminal.ts';

interface Context {
  deployment: Deployment;
  server: Server;
  browser: Browser;
}
const all = anyTest as TestFn<Context>;
const missing = missingBrowser() ?? terminalMissing;
const onBrowser = missing === undefined ? all.serial : all.serial.skip;
const why = missing === undefined ? '' : ` (skipped: ${missing})`;

const policyWhen = (condition: string) => ({
  'staff.cedar': `@id("staff") permit (principal in Group::"staff", action == Action::"connect", resource) when { ${condition} };`,
});

all.before(
  'an app, and a deployment whose pages have a name that passkeys can be for',
  async (t) => {
    t.timeout(60_000);
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const target = `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
    t.context.server = server;
    t.context.deployment = await Deployment.start({
      apps: [{ name: 'orders', target, health: 'off' }],
      urlHost: 'localhost',
      env: { machine: { BROWSER: '/bin/true' } }, // the test is the person at it
      policies: policyWhen('true'),
    });
    if (missing === undefined) t.context.browser = await openBrowser();
  },
);

all.after.always('stop', async (t) => {
  await (t.context.browser as Browser | undefined)?.close();
  await t.context.deployment.stop();
  t.context.server.close();
});

async function typePassword(page: Page, user: string): Promise<void> {
  await page.getByLabel('User name').fill(user);
  await page.getByLabel('Password').fill(passwordOf(user));
  await page.getByRole('button', { name: 'Continue' }).click();
}

/** Adds a passkey on the page that `ztna mfa add --passkey` names. */
async function addPasskey(machine: Machine, page: Page, user: string): Promise<void> {
  const { stdout } = await machine.ztna('mfa', 'add', '--passkey', '--json');
  await page.goto((JSON.parse(stdout) as { accountUrl: string }).accountUrl);
  await typePassword(page, user);
  await page.getByLabel('Name').fill('Laptop');
  await page.getByRole('button', { name: 'Add', exact: true }).click();
  await page.getByText('The passkey is added.').waitFor();
}

onBrowser(
  `passkey - one that policy asks for is taken in the browser that connect opens${why}`,
  async (t) => {
    t.timeout(120_000);
    const { deployment, browser } = t.context;
    const machine = await deployment.enrol('ada');
    const { page, context } = await openPage(browser);
    await addAuthenticator(page);
    await addPasskey(machine, page, 'ada');
    t.regex((await machine.ztna('mfa', 'list')).stdout, /^passkey {3}Laptop {2}\(/m);

    t.teardown(() => deployment.applyPolicies(policyWhen('true')));
    await deployment.applyPolicies(policyWhen('context.authentication.phishing_resistant'));
    t.regex(
      (await machine.ztna('why', 'orders')).stderr,
      /sign in with a passkey: ztna login --browser/,
    );
    const args = ['connect', 'orders', '--listen', '0'];
    const terminal = new Terminal(deployment.commands.ztna, args, machine.env);
    t.teardown(() => terminal.program.stop('SIGKILL'));
    await terminal.show(/a passkey is needed \[ERR_IDENTITY_OTP_NEEDED\]/);
    await terminal.show(/https:\S+\/sign-in\/\S+\r?\n/);
    await page.goto(/https:\S+\/sign-in\/[\w-]+/.exec(terminal.shown)?.[0] ?? '');
    await page.getByRole('button', { name: 'Use a passkey' }).click();
    await page.getByText('You are signed in').waitFor();
    await terminal.show(/signed in as ada[^]*open, until/);
    t.notRegex(terminal.shown, /password/);
    const port = Number(/127\.0\.0\.1:(\d+)/.exec(terminal.shown)?.[1]);
    const socket = connect({ port, host: '127.0.0.1' });
    socket.write('hello');
    await once(socket, 'data');
    socket.destroy();

    const removed = await machine.ztna('mfa', 'remove', '--passkey', 'Laptop');
    t.is(removed.code, 0, removed.stderr);
    t.regex((await machine.ztna('mfa', 'list')).stdout, /^passkey {3}none/m);
    await context.close();
  },
);

all.serial('recovery codes - each signs in once in place of a one-time password', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const machine = await deployment.enrol('bob');
  const adding = machine.start('mfa', 'add', '--otp-stdin');
  const totp = URI.parse(await adding.line(/^otpauth:/));
  adding.child.stdin.end(`${totp.generate({ timestamp: Date.now() - 30_000 })}\n`);
  t.is((await adding.ended).code, 0, adding.transcript());
  const made = await machine.ztna('mfa', 'recovery', '--otp', totp.generate());
  t.is(made.code, 0, made.stderr);
  const codes = made.stdout.trim().split('\n');
  t.is(new Set(codes).size, 10);
  const [code = ''] = codes;
  const login = () =>
    runProgram(deployment.commands.ztna, ['login', '--password-stdin', '--otp', code], {
      env: machine.env,
      input: `${passwordOf('bob')}\n`,
    });
  t.is((await login()).code, 0);
  t.is((await login()).code, 4);
  t.regex((await machine.ztna('mfa', 'list')).stdout, /^recovery {2}9 codes left$/m);
});
