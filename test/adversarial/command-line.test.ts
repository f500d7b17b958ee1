import { once } from 'node:events';
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { Deployment, freePort, type Machine } from '../support/deployment.ts';
import { launchers, runProgram, type Finished } from '../support/program.ts';

interface Context {
  deployment: Deployment;
  alice: Machine;
  stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

test.before('two apps: one that answers, one that is down', async (t) => {
  t.timeout(90_000);
  const stops: (() => unknown)[] = [];
  t.context.stops = stops;
  const server = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stops.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  const deployment = await Deployment.start({
    apps: [
      { name: 'up', target: `tcp://127.0.0.1:${port}` },
      { name: 'down', target: `tcp://127.0.0.1:${await freePort()}` },
    ],
  });
  stops.push(() => deployment.stop());
  t.context.deployment = deployment;
  t.context.alice = await deployment.enrol();
});

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

/** The command ended with that exit code and error code, said nothing on stdout, and its words match. */
function assertFailed(
  t: ExecutionContext<Context>,
  finished: Finished,
  exitCode: number,
  code: string,
  ...words: RegExp[]
): void {
  t.is(finished.code, exitCode, finished.stderr);
  t.is(finished.stdout, '');
  t.true(finished.stderr.includes(`[${code}]`), finished.stderr);
  for (const word of words) t.regex(finished.stderr, word);
}

const relay = (...args: string[]): Promise<Finished> => runProgram(launchers.relay, args);

test.serial(
  'policy apply - a malformed one names file, line and hint, and the old one stays active',
  async (t) => {
    const { deployment, alice } = t.context;
    const before = await deployment.admin('policy', 'show');
    const dir = join(deployment.dir, 'bad-policies');
    await mkdir(dir);
    await writeFile(
      join(dir, 'good.cedar'),
      'permit (principal, action == Action::"connect", resource == App::"down");\n',
    );
    const bad: Readonly<Record<string, RegExp>> = {
      'permit (principal,\n  action, resource)\nwhen { context.postur.firewall == "on" };\n':
        /bad\.cedar:[13]:/,
      '// a comment\npermit (principal, action, resource\n': /bad\.cedar:[23]:/,
      '\n\npermit (principal, action == Action::"conect", resource);\n': /bad\.cedar:3:/,
    };
    for (const [text, place] of Object.entries(bad)) {
      await writeFile(join(dir, 'bad.cedar'), text);
      assertFailed(
        t,
        await deployment.tryAdmin('policy', 'apply', dir),
        2,
        'ERR_POLICY_INVALID',
        place,
        /\nfix: /,
      );
      t.is(await deployment.admin('policy', 'show'), before);
    }
    t.is((await alice.ztna('why', 'up')).code, 0);
  },
);

test.serial('configuration - an unknown key names its line and the nearest word', async (t) => {
  const { deployment } = t.context;
  const dir = join(deployment.dir, 'misspelt');
  const port = await freePort();
  t.is((await relay('init', '--dir', dir, '--url', `https://127.0.0.1:${port}`)).code, 0);
  const path = join(dir, 'relay.yaml');
  const lines = (await readFile(path, 'utf8')).trimEnd().split('\n').length;
  await appendFile(path, 'verifcation: { interval: 5s }\n');
  const finished = await relay('run', '--dir', dir);
  const place = new RegExp(`relay\\.yaml:${lines + 1}: `);
  assertFailed(t, finished, 2, 'ERR_CONFIG_INVALID', place, /verifcation/, /fix: .*verification/);

  const connectorDir = join(deployment.dir, 'misspelt-connector');
  await mkdir(connectorDir, { mode: 0o700 });
  await writeFile(join(connectorDir, 'connector.yaml'), '# apps\naps:\n  x: tcp://127.0.0.1:1\n');
  const connector = await runProgram(launchers.connector, ['run', '--dir', connectorDir]);
  assertFailed(t, connector, 2, 'ERR_CONFIG_INVALID', /line 2/, /aps/, /fix: .*apps/);
});

test.serial('init - a second one changes nothing', async (t) => {
  const { deployment } = t.context;
  const before = await readFile(join(deployment.relayDir, 'control-plane', 'root.key'));
  const finished = await relay('init', '--dir', deployment.relayDir, '--url', 'https://other:443');
  assertFailed(t, finished, 2, 'ERR_CONFIG_EXISTS', /\nfix: /);
  t.deepEqual(await readFile(join(deployment.relayDir, 'control-plane', 'root.key')), before);
});

test.serial(
  'run - a second relay on the same store is refused, and the first goes on',
  async (t) => {
    const { deployment, alice } = t.context;
    const finished = await relay(
      'run',
      '--dir',
      deployment.relayDir,
      '--listen',
      `127.0.0.1:${await freePort()}`,
    );
    assertFailed(t, finished, 2, 'ERR_CONFIG_LOCKED', /\nfix: /);
    t.is((await alice.ztna('apps')).code, 0);
  },
);

test.serial(
  'run - a second connector on the same directory is refused, and the first goes on',
  async (t) => {
    const { deployment, alice } = t.context;
    const finished = await runProgram(launchers.connector, [
      'run',
      '--dir',
      deployment.connectorDir,
    ]);
    assertFailed(t, finished, 2, 'ERR_CONFIG_LOCKED');
    const { program } = await deployment.connect(alice, 'up');
    await program.stop();
  },
);

test.serial('run - a relay whose port is taken says by whom and ends', async (t) => {
  const { deployment } = t.context;
  const dir = join(deployment.dir, 'busy');
  t.is((await relay('init', '--dir', dir, '--url', deployment.url)).code, 0);
  const finished = await relay('run', '--dir', dir);
  t.not(finished.code, 0);
  t.is(finished.stdout, '');
  t.regex(finished.stderr, /\[ERR_CLIENT_PORT_BUSY\]/);
  t.regex(finished.stderr, new RegExp(`${deployment.port}`));
});

test.serial('connect - a busy local port ends with 9 and names its holder', async (t) => {
  const { alice } = t.context;
  const holder = createServer();
  holder.listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const { port } = holder.address() as AddressInfo;
  const finished = await alice.ztna('connect', 'up', '--listen', String(port));
  assertFailed(
    t,
    finished,
    9,
    'ERR_CLIENT_PORT_BUSY',
    new RegExp(`127\\.0\\.0\\.1:${port}`),
    new RegExp(`pid ${process.pid}\\)`),
    /\nfix: /,
  );
  holder.close();
});

test.serial('connect - where everybody could reach the port it is refused', async (t) => {
  for (const address of ['0.0.0.0:0', '[::]:0']) {
    const finished = await t.context.alice.ztna('connect', 'up', '--listen', address);
    assertFailed(t, finished, 2, 'ERR_CONFIG_USAGE', /\nfix: .*127\.0\.0\.1/);
  }
});

test.serial('connect - names that are none end with 2 and ask nobody', async (t) => {
  for (const app of ['--__proto__.x', '../etc/passwd', 'a\nb', 'A B', '']) {
    const finished = await t.context.alice.ztna('connect', app);
    t.is(finished.code, 2, `${app}: ${finished.stderr}`);
    t.is(finished.stdout, '');
  }
});

test.serial('connect - on a machine that is not enrolled it ends with 4', async (t) => {
  const finished = await t.context.deployment.machine().ztna('connect', 'up');
  assertFailed(t, finished, 4, 'ERR_IDENTITY_NOT_ENROLLED', /\nfix: .*ztna enroll/);
});

test.serial('connect - after signing out it ends with 4', async (t) => {
  const bob = await t.context.deployment.enrol('bob');
  t.is((await bob.ztna('logout')).code, 0);
  const finished = await bob.ztna('connect', 'up');
  assertFailed(t, finished, 4, 'ERR_IDENTITY_SIGN_IN_NEEDED', /\nfix: .*ztna login/);
});

test.serial('connect - without permission it ends with 5', async (t) => {
  const carol = await t.context.deployment.enrol('carol', ['visitors']);
  assertFailed(t, await carol.ztna('connect', 'up'), 5, 'ERR_POLICY_DENIED', /\nref: dec_/);
});

function receive(socket: Socket): Promise<'end' | 'error'> {
  return new Promise((resolve) => {
    socket.once('end', () => resolve('end'));
    socket.once('error', () => resolve('error'));
    socket.resume();
  });
}

test.serial(
  'connect - an app that is down resets each connection, and the tunnel goes on',
  async (t) => {
    const { deployment, alice } = t.context;
    const { program, port } = await deployment.connect(alice, 'down');
    for (let i = 0; i < 3; i++) {
      const socket = connect({ port, host: '127.0.0.1' });
      t.is(await receive(socket), 'error');
    }
    t.deepEqual(
      program.lines.filter((line) => line.includes('"closed"')),
      [],
    );
    await program.stop();
    const stdio = await alice.ztna('connect', 'down', '--stdio');
    t.is(stdio.stdout, '');
    t.is(stdio.code, 8, stdio.stderr);
  },
);

test.serial(
  'connect - with the connector gone it ends with 8, and works when that is back',
  async (t) => {
    const { deployment, alice } = t.context;
    await deployment.connector.stop();
    assertFailed(t, await alice.ztna('connect', 'up'), 8, 'ERR_CONNECTOR_OFFLINE', /\nfix: /);
    await deployment.startConnector();
    const { program } = await deployment.connect(alice, 'up');
    await program.stop();
  },
);

test.serial(
  'every command - with the relay gone ends with 3 and says what to look at',
  async (t) => {
    const { deployment, alice } = t.context;
    const code = await deployment.admin('invite', 'user', 'late');
    await deployment.relay.stop();
    for (const args of [['connect', 'up'], ['apps'], ['why', 'up'], ['logout']]) {
      assertFailed(t, await alice.ztna(...args), 3, 'ERR_RELAY_UNREACHABLE', /\nfix: /);
    }
    const enrol = await runProgram(launchers.ztna, ['enroll', '-', '--password-stdin'], {
      env: deployment.machine().env,
      input: `${code}correct horse battery\n`,
    });
    assertFailed(t, enrol, 3, 'ERR_RELAY_UNREACHABLE', /\nfix: /);
    assertFailed(
      t,
      await deployment.tryAdmin('user', 'list'),
      3,
      'ERR_RELAY_UNREACHABLE',
      /\nfix: /,
    );
  },
);
