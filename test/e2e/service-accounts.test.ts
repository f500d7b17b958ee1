import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import { auditHead, auditUntil } from '../support/audit-rows.ts';
import { Deployment, type Machine } from '../support/deployment.ts';
import { TokenIssuer } from '../support/token-issuer.ts';

const test = anyTest as TestFn<{ deployment: Deployment; server: Server }>;

test.before('an app that answers what it is told, and a deployment', async (t) => {
  t.timeout(60_000);
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const target = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const deployment = await Deployment.start({ apps: [{ name: 'orders', target, health: 'off' }] });
  t.context = { server, deployment };
});

test.after.always('stop', async (t) => {
  await (t.context.deployment as Deployment | undefined)?.stop();
  t.context.server.close();
});

/** A key pair of a service, as PEM files. */
async function keyPair(dir: string): Promise<{ privateFile: string; publicFile: string }> {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  await mkdir(dir, { recursive: true });
  const files = { privateFile: join(dir, 'ci.key'), publicFile: join(dir, 'ci.pub') };
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  await writeFile(files.privateFile, pem, { mode: 0o600 });
  await writeFile(files.publicFile, publicKey.export({ type: 'spki', format: 'pem' }));
  return files;
}

/** A machine of the service, enrolled by the command and not signed in. */
async function machineOf(deployment: Deployment, service: string): Promise<Machine> {
  const machine = deployment.machine();
  const code = await deployment.admin('invite', 'service', service);
  const enrolling = machine.start('enroll', '-', '--service');
  enrolling.child.stdin.end(code);
  const { code: exit } = await enrolling.ended;
  if (exit !== 0) throw new Error(enrolling.transcript());
  return machine;
}

async function echo(socket: Socket, text: string): Promise<void> {
  socket.write(text);
  for (let heard = ''; heard !== text;) {
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    heard += chunk.toString();
  }
}

test.serial(
  'service - signs in with its key, and stays so by itself while a connection lasts',
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const { privateFile, publicFile } = await keyPair(join(deployment.dir, 'keys'));
    const refused = await deployment.tryAdmin('service', 'add', 'ci', '--key', privateFile);
    t.is(refused.code, 2);
    t.regex(refused.stderr, /private key, which stays with the service/);
    await deployment.admin(
      ...['service', 'add', 'ci', '--group', 'staff', '--key', publicFile, '--session', '10s'],
    );
    const machine = await machineOf(deployment, 'ci');
    t.is((await machine.ztna('apps')).code, 4);
    const login = await machine.ztna('login', '--service', 'ci', '--key-file', privateFile);
    t.is(login.code, 0, login.stderr);
    t.regex(login.stderr, /signed in as ci\b.*, until/);

    t.is((await machine.ztna('login', '--key-file', privateFile)).code, 2);
    const byPerson = ['--service', 'ci', '--key-file', privateFile, '--password-stdin'];
    t.is((await machine.ztna('login', ...byPerson)).code, 2);

    const after = await auditHead(deployment);
    const { program, port } = await deployment.connect(machine, 'orders');
    const socket = connect({ port, host: '127.0.0.1' });
    t.teardown(() => {
      socket.destroy();
      return program.stop();
    });
    await echo(socket, 'before');
    // Two renewals: the first session has ended by itself by then.
    await auditUntil(deployment, after, 2, ({ action, outcome }) => {
      return action === 'session.sign_in' && outcome === 'ok';
    });
    await echo(socket, 'after');
    t.notRegex(program.transcript(), /password|ztna login/);
  },
);

test.serial('service - a later command signs in by itself, until ztna logout', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const { privateFile, publicFile } = await keyPair(join(deployment.dir, 'more-keys'));
  await deployment.admin('service', 'add', 'batch', '--group', 'staff', '--key', publicFile);
  const machine = await machineOf(deployment, 'batch');
  const login = await machine.ztna('login', '--service', 'batch', '--key-file', privateFile);
  t.is(login.code, 0, login.stderr);
  const [session] = (await deployment.admin('session', 'list', '--json'))
    .split('\n')
    .filter((line) => line.includes('"batch"'))
    .map((line) => JSON.parse(line) as { id: string; provider: string; methods: string[] });
  t.like(session, { provider: 'service', methods: ['key'] });
  await deployment.admin('revoke', 'session', session?.id ?? '', '--reason', 'a_test');
  const apps = await machine.ztna('apps', '--json');
  t.is(apps.code, 0, apps.stderr);
  t.regex(apps.stdout, /"orders"/);
  t.is((await machine.ztna('logout')).code, 0);
  t.is((await machine.ztna('apps')).code, 4);
  t.regex(await deployment.admin('service', 'list'), /batch +staff +active/);
  await deployment.admin('service', 'remove', 'batch');
  t.is((await deployment.tryAdmin('service', 'show', 'batch')).code, 2);
});

test.serial('service - signs in with the token that its file holds at that moment', async (t) => {
  t.timeout(60_000);
  const { deployment } = t.context;
  const issuer = new TokenIssuer();
  await issuer.start();
  t.teardown(() => {
    issuer.stop();
  });
  const ca = join(deployment.dir, 'issuer.pem');
  const tokenFile = join(deployment.dir, 'token');
  await writeFile(ca, issuer.ca.certificatePem);
  await deployment.admin(
    ...['service', 'add', 'shop', '--group', 'staff', '--issuer', issuer.url, '--audience', 'ztna'],
    ...['--claim', 'repository=acme/shop', '--ca', ca, '--allow-private'],
  );
  const machine = await machineOf(deployment, 'shop');
  await writeFile(tokenFile, await issuer.sign());
  const login = await machine.ztna('login', '--service', 'shop', '--token-file', tokenFile);
  t.is(login.code, 0, login.stderr);
  await writeFile(tokenFile, await issuer.sign({ ['repository']: 'evil/shop' }));
  await deployment.admin('revoke', 'user', 'shop', '--reason', 'a_test');
  t.is((await machine.ztna('apps')).code, 4);
  await writeFile(tokenFile, await issuer.sign());
  const apps = await machine.ztna('apps');
  t.is(apps.code, 0, apps.stderr);
  await deployment.admin('user', 'disable', 'shop');
  t.is((await machine.ztna('apps')).code, 4);
});
