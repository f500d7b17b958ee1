import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { lstat, readdir, readFile } from 'node:fs/promises';
import { connect, createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { TOTP, URI } from 'otpauth';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { callAdmin } from '../../relay/cli/admin-client.ts';
import { auditRows } from '../support/audit-rows.ts';
import { Deployment, freePort, passwordOf, type Machine } from '../support/deployment.ts';
import { launchers, runProgram, RunningProgram, type Finished } from '../support/program.ts';

interface Context {
  deployment: Deployment;
  adminPort: number;
  stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

/** Everything that any program of the deployment said, with every command line of this time. */
const said: string[] = [];
const commandLines: string[] = [];

test.before('a deployment that logs all it can', async (t) => {
  t.timeout(90_000);
  const stops: (() => unknown)[] = [];
  t.context.stops = stops;
  const server = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stops.push(() => server.close());
  const debug = { ZTNA_LOG_LEVEL: 'debug' };
  const adminPort = await freePort();
  const deployment = await Deployment.start({
    apps: [{ name: 'app', target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` }],
    env: { relay: debug, connector: debug, machine: debug },
    connectorArgs: ['--admin-listen', `127.0.0.1:${adminPort}`],
  });
  stops.push(() => deployment.stop());
  Object.assign(t.context, { deployment, adminPort });
});

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

function note<T extends Finished | RunningProgram>(program: T): T {
  if (program instanceof RunningProgram) said.push(...program.lines, ...program.errorLines);
  else said.push(program.stdout, program.stderr);
  return program;
}

async function noteCommandLines(): Promise<void> {
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    const line = await readFile(`/proc/${pid}/cmdline`, 'latin1').catch(() => '');
    if (line !== '') commandLines.push(line);
  }
}

/** Listening TCP sockets of a process, as `ss` tells them. */
function listeners(pid: number | undefined): string[] {
  const lines = execFileSync('ss', ['-ltnpH'], { encoding: 'utf8' }).split('\n');
  return lines
    .filter((line) => line.includes(`pid=${pid},`))
    .map((line) => line.trim().split(/\s+/)[3] ?? '');
}

test.serial('ports - a connector listens on its loopback admin port and nowhere else', (t) => {
  const { deployment, adminPort } = t.context;
  t.deepEqual(listeners(deployment.connector.child.pid), [`127.0.0.1:${adminPort}`]);
});

test.serial(
  'ports - without an admin port a connector listens nowhere, with a tunnel open too',
  async (t) => {
    const { deployment } = t.context;
    const code = await deployment.admin('invite', 'connector', 'closed', '--app', 'other');
    const connector = new RunningProgram(launchers.connector, [
      ...['run', '--dir', join(deployment.dir, 'closed'), '--enroll', '-'],
      ...['--app', `other=tcp://127.0.0.1:${t.context.adminPort}`],
    ]);
    t.context.stops.push(() => connector.stop());
    connector.child.stdin.end(code);
    await connector.line(/^ready$/);
    t.deepEqual(listeners(connector.child.pid), []);
    const machine = await deployment.enrol('porter');
    const { program, port } = await deployment.connect(machine, 'other');
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => undefined);
    socket.write(`GET /livez HTTP/1.1\r\nhost: 127.0.0.1:${t.context.adminPort}\r\n\r\n`);
    t.regex(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 200/);
    t.deepEqual(listeners(connector.child.pid), []);
    t.deepEqual(listeners(program.child.pid), [`127.0.0.1:${port}`]);
    await program.stop();
  },
);

interface Entry {
  readonly path: string;
  readonly mode: number;
  readonly isDirectory: boolean;
}

async function walk(dir: string): Promise<Entry[]> {
  const stat = await lstat(dir);
  const entry = { path: dir, mode: stat.mode & 0o777, isDirectory: stat.isDirectory() };
  if (!stat.isDirectory()) return [entry];
  const inside = await Promise.all((await readdir(dir)).map((name) => walk(join(dir, name))));
  return [entry, ...inside.flat()];
}

test.serial(
  'files - every directory is 0700 and every file that holds more than public keys is 0600',
  async (t) => {
    const { deployment } = t.context;
    const machine = await deployment.enrol('filer');
    for (const dir of [deployment.relayDir, deployment.connectorDir, machine.home]) {
      const entries = await walk(dir);
      t.true(entries.length > 1);
      for (const { path, mode, isDirectory } of entries) {
        const isPublic = /\.(pem|pub)$/.test(path);
        t.is(
          mode.toString(8),
          isDirectory ? '700' : isPublic && mode === 0o644 ? '644' : '600',
          path,
        );
      }
    }
  },
);

let enrolled: Machine | undefined;

/** Secrets that this run makes, in every spelling in which one could slip out. */
const canaries = new Map<string, string>();

function addCanary(what: string, secret: string | Buffer): void {
  const bytes = Buffer.from(secret);
  canaries.set(what, bytes.toString('latin1'));
  canaries.set(`${what} in base64`, bytes.toString('base64').replace(/=+$/, ''));
  canaries.set(`${what} in base64url`, bytes.toString('base64url'));
  canaries.set(`${what} in hex`, bytes.toString('hex'));
}

test.serial(
  'canaries - a whole life of a machine, with everything that goes wrong in it',
  async (t) => {
    t.timeout(120_000);
    const { deployment } = t.context;
    const password = passwordOf('alice');
    const wrongPassword = `wrong-${randomBytes(9).toString('hex')}`;
    const payload = `payload-${randomBytes(30).toString('hex')}`;
    addCanary('password', password);
    addCanary('wrong password', wrongPassword);
    addCanary('payload', payload);
    const code = (await deployment.admin('invite', 'user', 'alice', '--group', 'staff')).trim();
    canaries.set('code', code);
    canaries.set(
      'secret of the code',
      Buffer.from(code.slice(6), 'base64url').subarray(32, 48).toString('base64url'),
    );
    const machine = deployment.machine();
    enrolled = machine;
    const ztna = async (args: string[], input = ''): Promise<Finished> => {
      const running = runProgram(launchers.ztna, args, { env: machine.env, input });
      let isOver = false as boolean;
      const finished = running.finally(() => (isOver = true));
      do await noteCommandLines();
      while (!isOver && (await delay(50, true)));
      return note(await finished);
    };
    t.is((await ztna(['enroll', '-', '--password-stdin'], `${code}\n${password}\n`)).code, 0);
    t.not(
      (await ztna(['enroll', '-', '--password-stdin', '--replace'], `${code}\n${password}\n`)).code,
      0,
    );
    t.is((await ztna(['login', '--password-stdin'], `${wrongPassword}\n`)).code, 4);
    t.is((await ztna(['login', '--password-stdin'], `${password}\n`)).code, 0);

    await addOneTimePasswords(t, machine);
    t.is((await ztna(['logout'])).code, 0);
    t.is((await ztna(['login', '--password-stdin', '--otp', '000000'], `${password}\n`)).code, 4);
    const otp = await nextOtp();
    t.is((await ztna(['login', '--password-stdin', '--otp', otp], `${password}\n`)).code, 0);

    const { program, port } = await deployment.connect(machine, 'app');
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => undefined);
    socket.write(payload);
    t.is(String((await once(socket, 'data'))[0]), payload);
    await noteCommandLines();
    await deployment.admin('revoke', 'user', 'alice', '--reason', 'canary');
    await program.event('closed');
    await program.ended;
    note(program);
  },
);

let totp: TOTP | undefined;

/** Turns one-time passwords on; the secret comes on standard output, where it was asked for. */
async function addOneTimePasswords(t: ExecutionContext<Context>, machine: Machine): Promise<void> {
  const program = machine.start('mfa', 'add', '--otp-stdin');
  const line = await program.line(/^otpauth:/);
  const parsed = URI.parse(line.trim());
  if (!(parsed instanceof TOTP)) throw new Error('not a TOTP secret');
  totp = parsed;
  program.child.stdin.write(`${parsed.generate()}\n`);
  t.is((await program.ended).code, 0, program.transcript());
  canaries.set('one-time secret', parsed.secret.base32);
  said.push(...program.errorLines); // all but what it was asked for
}

/** A code that has not been used: that of the next period counts already. */
function nextOtp(): Promise<string> {
  if (!totp) throw new Error('one-time passwords are not set up');
  return Promise.resolve(totp.generate({ timestamp: Date.now() + 30_000 }));
}

test.serial('canaries - private keys count too', async (t) => {
  const { deployment } = t.context;
  const files = [
    ...(await walk(join(deployment.relayDir, 'control-plane'))),
    ...(await walk(join(deployment.relayDir, 'data-plane'))),
    ...(await walk(deployment.connectorDir)),
    ...(await walk(enrolled?.home ?? '')),
  ].filter(({ path }) => /\.(key|json)$/.test(path));
  for (const { path } of files) {
    const text = await readFile(path, 'utf8');
    const pems = text
      .replaceAll('\\n', '\n')
      .matchAll(/-----BEGIN [A-Z ]*PRIVATE KEY-----\n([^-]+)-/g);
    for (const [, body = ''] of pems) {
      // The last line of an RSA key, and all of a short one behind what every such key begins with.
      const lines = body.trim().split('\n');
      canaries.set(
        `key in ${path}`,
        (lines.length === 1 ? lines[0]?.slice(24) : lines.at(-2)) ?? '',
      );
    }
  }
  t.true([...canaries.keys()].filter((what) => what.startsWith('key in')).length >= 8);
});

test.serial('canaries - none is in any output, audit record or command line', async (t) => {
  const { deployment } = t.context;
  note(deployment.relay);
  note(deployment.connector);
  const audit = JSON.stringify([
    await auditRows(deployment),
    await callAdmin(deployment.relayDir, 'invite.list', {}),
    await callAdmin(deployment.relayDir, 'user.list', {}),
    await callAdmin(deployment.relayDir, 'device.list', {}),
  ]);
  const output = said.join('\n');
  t.true(output.length > 2_000, 'the programs said too little for this to mean anything');
  t.regex(output, /"level":"debug"/);
  t.true(commandLines.some((line) => line.includes('--password-stdin')));
  for (const [what, canary] of canaries) {
    t.true(canary.length >= 8, what);
    t.false(output.includes(canary), `${what} is in the output of a program`);
    t.false(audit.includes(canary), `${what} is in the audit log`);
    t.false(
      commandLines.some((line) => line.includes(canary)),
      `${what} is in a command line`,
    );
  }
});

test.serial('audit - every refusal above has its one record, and the chain holds', async (t) => {
  const { deployment } = t.context;
  const refused = (await auditRows(deployment)).filter(
    ({ outcome, user, action }) =>
      outcome === 'refused' && (user === 'alice' || action === 'identity.enrol'),
  );
  t.deepEqual(
    refused.map(({ action, details }) => [action, details['code']]),
    [
      ['identity.enrol', 'ERR_IDENTITY_CODE_USED'],
      ['session.sign_in', 'ERR_IDENTITY_SIGN_IN_REFUSED'],
      ['session.sign_in', 'ERR_IDENTITY_SIGN_IN_REFUSED'],
    ],
  );
  t.is((await deployment.tryAdmin('audit', 'verify')).code, 0);
});
