import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { Deployment, type Machine } from '../support/deployment.ts';
import { OidcServer } from '../support/oidc-server.ts';
import type { RunningProgram } from '../support/program.ts';
import type { ScriptedBrowser } from '../support/scripted-browser.ts';

interface Context {
  deployment: Deployment;
  provider: OidcServer;
  server: Server;
}
const test = anyTest as TestFn<Context>;

const person = (name: string, groups: readonly string[] = ['/staff']) => ({
  claims: { email: `${name}@example.com`, email_verified: true, groups },
  amr: ['pwd', 'otp'],
});

test.before('a deployment that asks its provider again every second', async (t) => {
  t.timeout(60_000);
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const target = `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  const deployment = await Deployment.start({
    apps: [{ name: 'orders', target, health: 'off' }],
    relayConfig: { enrolment: '{ mode: sso }' },
    env: { machine: { BROWSER: '/bin/true' } }, // the test is the person at it
  });
  const provider = await OidcServer.start({
    people: Object.fromEntries(['ada', 'bob', 'cleo', 'dora'].map((name) => [name, person(name)])),
    redirectUris: [`${deployment.url}/oidc/corp/callback`],
    logoutUri: `${deployment.url}/oidc/corp/logout`,
  });
  t.context = { server, deployment, provider };
  const secret = join(deployment.dir, 'corp.secret');
  await writeFile(secret, `${provider.clientSecret}\n`, { mode: 0o600 });
  await deployment.admin(
    ...['provider', 'add', 'corp', '--issuer', provider.issuer, '--client-id', provider.clientId],
    ...['--client-secret-file', secret, '--groups-claim', 'groups', '--recheck', '1s'],
    ...['--ca', provider.caFile(deployment.dir), '--allow-private'],
  );
});

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  await t.context.provider.stop();
  t.context.server.close();
});

/** Has the person at that browser pass the pages that a running command asks for. */
async function pass(program: RunningProgram, browser: ScriptedBrowser): Promise<void> {
  const { url } = await program.event('sign_in');
  const page = await browser.follow(String(url));
  const choice = /href="(\/oidc\/corp\/begin[^"]*)"/.exec(page.text)?.[1];
  if (choice !== undefined) {
    await browser.follow(new URL(choice.replaceAll('&amp;', '&'), page.url));
  }
}

interface Flowing {
  readonly machine: Machine;
  readonly program: RunningProgram;
  readonly browser: ScriptedBrowser;
  readonly flow: Flow;
}

/** A machine of that person's, with a tunnel through which bytes flow. */
async function flowing(t: ExecutionContext<Context>, who: string): Promise<Flowing> {
  const { deployment, provider } = t.context;
  const browser = provider.browserOf(who);
  const machine = deployment.machine();
  const enrolling = machine.start('enroll', deployment.url, '--json');
  await pass(enrolling, browser);
  t.is((await enrolling.ended).code, 0, enrolling.transcript());
  const { program, port } = await deployment.connect(machine, 'orders');
  const flow = new Flow(connect({ port, host: '127.0.0.1' }));
  t.teardown(() => flow.stop());
  await flow.reach(1_000);
  return { machine, program, browser, flow };
}

/** Counts up, a few bytes every 5 ms, and checks that the app sends each back once and in order. */
class Flow {
  readonly #socket: Socket;
  readonly #timer: NodeJS.Timeout;
  #sent = 0;
  #received = 0;
  #lastAtMs = 0;
  isWhole = true;
  readonly ended: Promise<void>;

  constructor(socket: Socket) {
    this.#socket = socket;
    this.ended = new Promise((resolve) => {
      socket.once('close', () => {
        clearInterval(this.#timer);
        resolve();
      });
    });
    socket.on('error', () => undefined);
    socket.on('data', (data: Buffer) => {
      for (const byte of data) if (byte !== this.#received++ % 251) this.isWhole = false;
      this.#lastAtMs = performance.now();
    });
    this.#timer = setInterval(() => {
      socket.write(Buffer.from(Array.from({ length: 64 }, () => this.#sent++ % 251)));
    }, 5);
  }

  /** How long after that moment the last byte came, in milliseconds. */
  lastAfter(atMs: number): string {
    return Math.max(0, this.#lastAtMs - atMs).toFixed(0);
  }

  /** Resolves once that many more bytes have come. */
  async reach(more: number): Promise<void> {
    const goal = this.#received + more;
    while (this.#received < goal) await once(this.#socket, 'data');
  }

  /** Resolves once everything that was sent has come back. */
  async settle(): Promise<void> {
    clearInterval(this.#timer);
    while (this.#received < this.#sent) await once(this.#socket, 'data');
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#socket.destroy();
  }
}

test.serial(
  'provider - a disabled account freezes the tunnel, and a new sign-in thaws it',
  async (t) => {
    t.timeout(120_000);
    const { provider } = t.context;
    const { machine, program, browser, flow } = await flowing(t, 'ada');
    const ada = provider.people.get('ada') ?? person('ada');
    const disabledAtMs = performance.now();
    provider.people.delete('ada');
    const refusedAtMs = await provider.refusedAtMs();
    const suspended = await program.event('suspended');
    t.like(suspended, { reason: 'sign_in_needed' });
    t.log(
      `last byte ${flow.lastAfter(disabledAtMs)} ms after the account was disabled, ${flow.lastAfter(refusedAtMs)} ms after the provider refused (asked every second)`,
    );
    const status = JSON.parse((await machine.ztna('status', '--json')).stdout) as object;
    t.like(status, { isSignedIn: false });

    provider.people.set('ada', ada);
    const login = machine.start('login', '--provider', 'corp', '--json');
    await pass(login, browser);
    t.is((await login.ended).code, 0, login.transcript());
    await program.event('resumed');
    await flow.reach(1_000);
    await flow.settle();
    t.true(flow.isWhole, 'nothing was lost, doubled or changed');
  },
);

test.serial('provider - a group that was lost there ends the tunnel', async (t) => {
  t.timeout(120_000);
  const { provider } = t.context;
  const { program, flow } = await flowing(t, 'bob');
  const lostAtMs = performance.now();
  provider.people.set('bob', person('bob', []));
  await flow.ended;
  t.log(`last byte ${flow.lastAfter(lostAtMs)} ms after the group was lost (asked every second)`);
  t.like(await program.event('closed'), { reason: 'group_changed' });
});

test.serial('provider - a logout there ends the tunnel at once', async (t) => {
  t.timeout(120_000);
  const { provider } = t.context;
  const { program, browser, flow } = await flowing(t, 'cleo');
  const leftAtMs = performance.now();
  await provider.logOut(`${provider.issuer}/session/end`, browser);
  await flow.ended;
  t.log(`last byte ${flow.lastAfter(leftAtMs)} ms after the logout began`);
  t.like(await program.event('closed'), { reason: 'provider_logout' });
});

test.serial(
  'provider - bytes flow on while it cannot be asked, and the list says so',
  async (t) => {
    t.timeout(120_000);
    const { deployment, provider } = t.context;
    const { flow } = await flowing(t, 'dora');
    provider.isDown = true;
    t.teardown(() => (provider.isDown = false));
    for (;;) {
      const [row] = (await deployment.ask('provider.list')) as { lastError: string | null }[];
      if (row?.lastError === 'provider_unreachable') break;
      await flow.reach(1);
    }
    await flow.reach(1_000);
    t.true(flow.isWhole);
  },
);
