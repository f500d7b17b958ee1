import { once } from 'node:events';
import { request } from 'node:https';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { auditHead, auditRows } from '../support/audit-rows.ts';
import { Deployment } from '../support/deployment.ts';
import { OidcServer } from '../support/oidc-server.ts';
import type { RunningProgram } from '../support/program.ts';

interface Context {
  deployment: Deployment;
  provider: OidcServer;
  server: Server;
  /** Ends of the app, by what the client said first. */
  ends: Map<string, Flow>;
  token: string;
}
const test = anyTest as TestFn<Context>;

/** How often the provider is asked whether its people may stay; ten minutes unless it is said otherwise. */
const recheckMs = 1_000;

/** One end of a connection on which bytes flow for as long as it lives. */
class Flow {
  readonly closed: Promise<unknown>;
  bytes = 0;
  lastAtMs = 0;
  readonly #socket: Socket;
  readonly #timer: NodeJS.Timeout;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      this.bytes += chunk.length;
      this.lastAtMs = performance.now();
    });
    this.closed = new Promise((resolve) => socket.once('close', resolve));
    const block = Buffer.alloc(256);
    this.#timer = setInterval(() => {
      // What nobody takes is not kept here without end.
      if (socket.writable && socket.writableLength < 65_536) socket.write(block);
    }, 2);
    socket.once('close', () => {
      clearInterval(this.#timer);
    });
  }

  /** Resolves when more has come than until now. */
  async goesOn(): Promise<void> {
    await once(this.#socket, 'data');
  }

  stop(): void {
    this.#socket.destroy();
  }
}

test.before(
  'an app that talks without end, a provider, a directory, and a deployment',
  async (t) => {
    t.timeout(60_000);
    const ends = new Map<string, Flow>();
    const server = createServer((socket) => {
      socket.once('data', (chunk: Buffer) => {
        ends.set(chunk.toString('latin1', 0, 3), new Flow(socket));
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const target = `tcp://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
    const deployment = await Deployment.start({
      apps: [{ name: 'orders', target, health: 'off' }],
      relayConfig: { enrolment: '{ mode: sso }' },
      env: { machine: { BROWSER: '/bin/true' } },
    });
    const people = Object.fromEntries(
      ['ann', 'bea', 'cat'].map((name) => [
        name,
        { claims: { email: `${name}@example.com`, email_verified: true } },
      ]),
    );
    const redirectUris = [`${deployment.url}/oidc/corp/callback`];
    const provider = await OidcServer.start({ people, redirectUris });
    await deployment.ask('provider.add', {
      name: 'corp',
      issuer: provider.issuer,
      clientId: provider.clientId,
      secret: provider.clientSecret,
      title: 'Example Corp',
      scopes: ['openid', 'profile', 'email', 'offline_access'],
      createUsers: false,
      recheckMs,
      ca: provider.caPem,
      allowPrivate: true,
    });
    const token = await deployment.admin('scim-token', 'add', 'corp', '--provider', 'corp');
    t.context = { server, deployment, provider, ends, token: token.trim() };
  },
);

test.after.always('stop', async (t) => {
  await (t.context.deployment as Deployment | undefined)?.stop();
  await t.context.provider.stop();
  t.context.server.close();
});

/** What the directory asks by SCIM. */
function scim(
  { deployment, token }: Context,
  method: string,
  path: string,
  body: unknown,
): Promise<{ status: number; body: { id: string } }> {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/scim+json' };
    const url = `${deployment.url}/scim/v2/${path}`;
    const options = { method, headers, rejectUnauthorized: false, agent: false };
    const call = request(url, options, (response) => {
      let text = '';
      response.on('data', (chunk: Buffer) => (text += chunk.toString()));
      response.on('end', () => {
        const answer = JSON.parse(text === '' ? '{}' : text) as { id: string };
        resolve({ status: response.statusCode ?? 0, body: answer });
      });
    });
    call.on('error', reject);
    call.end(JSON.stringify(body));
  });
}

interface Leaver {
  readonly id: string;
  readonly name: string;
  readonly program: RunningProgram;
  readonly near: Flow;
  readonly far: Flow;
}

/** A person of the directory who enrols by signing in at the provider and has a connection on which bytes flow both ways. */
async function arrive(t: ExecutionContext<Context>, who: string): Promise<Leaver> {
  const { deployment, provider, ends } = t.context;
  const name = `${who}@example.com`;
  const made = await scim(t.context, 'POST', 'Users', { userName: name, externalId: who });
  t.is(made.status, 201);
  const members = [{ value: made.body.id }];
  const [staff] = (await deployment.ask('group.list')) as { id: string; name: string }[];
  const group =
    staff === undefined
      ? await scim(t.context, 'POST', 'Groups', { displayName: 'staff', members })
      : await scim(t.context, 'PATCH', `Groups/${staff.id}`, {
          schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
          Operations: [{ op: 'add', path: 'members', value: members }],
        });
  t.true(group.status < 300);

  const machine = deployment.machine();
  const enrolling = machine.start('enroll', deployment.url, '--json');
  const url = String((await enrolling.event('sign_in'))['url']);
  const browser = provider.browserOf(who);
  const page = await browser.follow(url);
  const choice = /href="(\/oidc\/corp\/begin[^"]*)"/.exec(page.text)?.[1];
  if (choice !== undefined) {
    await browser.follow(new URL(choice.replaceAll('&amp;', '&'), page.url));
  }
  t.is((await enrolling.ended).code, 0, enrolling.transcript());

  const { program, port } = await deployment.connect(machine, 'orders');
  const socket = connect({ port, host: '127.0.0.1' });
  socket.write(who);
  const near = new Flow(socket);
  t.teardown(async () => {
    near.stop();
    await program.stop();
  });
  await near.goesOn();
  const far = ends.get(who);
  if (!far) throw new Error('the app heard nothing');
  await far.goesOn();
  return { id: made.body.id, name, program, near, far };
}

/** Says how long after `sinceMs` the last byte came at either end. */
function tell(t: ExecutionContext<Context>, what: string, { near, far }: Leaver, sinceMs: number) {
  const lastMs = Math.max(near.lastAtMs, far.lastAtMs) - sinceMs;
  t.log(`${what}: the last byte came ${Math.max(lastMs, 0).toFixed(1)} ms after`);
  return lastMs;
}

test.serial('leaver - disabled by command, the last byte is measured', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const leaver = await arrive(t, 'ann');
  const sinceMs = performance.now();
  await deployment.admin('user', 'disable', leaver.name);
  const answeredMs = performance.now() - sinceMs;
  await Promise.all([leaver.near.closed, leaver.far.closed]);
  t.log(`ztna-relay user disable took ${answeredMs.toFixed(1)} ms, with its own start`);
  tell(t, 'ztna-relay user disable', leaver, sinceMs);
  t.like(await leaver.program.event('closed'), { reason: 'user_disabled' });
});

test.serial('leaver - disabled by SCIM, the last byte is measured', async (t) => {
  t.timeout(60_000);
  const leaver = await arrive(t, 'bea');
  const sinceMs = performance.now();
  const answer = await scim(t.context, 'PATCH', `Users/${leaver.id}`, {
    schemas: ['urn:ietf:params:scim:api:messages:2.0:PatchOp'],
    Operations: [{ op: 'replace', value: { active: false } }],
  });
  const answeredMs = performance.now() - sinceMs;
  t.is(answer.status, 200);
  await Promise.all([leaver.near.closed, leaver.far.closed]);
  t.log(`the answer came after ${answeredMs.toFixed(1)} ms`);
  tell(t, 'SCIM active=false', leaver, sinceMs);
  t.like(await leaver.program.event('closed'), { reason: 'user_disabled' });
});

test.serial(
  'leaver - refused by the provider, the tunnel freezes and the last byte is measured',
  async (t) => {
    t.timeout(60_000);
    const { deployment, provider } = t.context;
    const leaver = await arrive(t, 'cat');
    const after = await auditHead(deployment);
    const sinceMs = performance.now();
    provider.people.delete('cat');
    const held = await leaver.program.event('suspended');
    t.like(held, { reason: 'sign_in_needed' });
    tell(t, `a provider that is asked every ${recheckMs} ms`, leaver, sinceMs);
    const rows = await auditRows(deployment, after);
    const { bytes: nearBytes } = leaver.near;
    t.true(rows.some(({ action }) => action === 'tunnel.suspend'));
    // Both ends are kept, and nothing passes: what the app sends now arrives nowhere.
    await leaver.program.stop();
    await leaver.near.closed;
    t.is(leaver.near.bytes, nearBytes);
  },
);
