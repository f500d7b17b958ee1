import { mkdir, rm, writeFile } from 'node:fs/promises';
import test, { type ExecutionContext } from 'ava';
import { Deployment, passwordOf } from '../support/deployment.ts';
import { makePlace, reasonOf, removePlace, run } from '../support/namespaces.ts';
import { launchers, mustRun, RunningProgram } from '../support/program.ts';

/** A laptop with one network device, and a relay that it reaches by either family under one name. */
const places = {
  laptop: `ztna-roam-${process.pid}-laptop`,
  relay: `ztna-roam-${process.pid}-relay`,
};
const name = 'relay.example';
const relayAddresses = ['198.18.41.1', 'fd18:41::1'];
const names = [...relayAddresses.map((address) => `${address} ${name}`), '127.0.0.1 localhost', ''];

const missing =
  process.platform !== 'linux'
    ? 'network namespaces are a feature of Linux'
    : process.getuid?.() === 0
      ? undefined
      : 'making network namespaces takes root';

async function buildNetwork(): Promise<void> {
  for (const place of Object.values(places)) {
    await makePlace(place);
    // `ip netns exec` shows this in the place of /etc/hosts.
    await mkdir(`/etc/netns/${place}`, { recursive: true });
    await writeFile(`/etc/netns/${place}/hosts`, names.join('\n'));
  }
  const { laptop, relay } = places;
  const far = ['peer', 'name', 'to-laptop', 'netns', relay];
  await run('ip', '-n', laptop, 'link', 'add', 'wifi', 'type', 'veth', ...far);
  for (const address of ['198.18.41.1/24', 'fd18:41::1/64'])
    await have('add', address, relay, 'to-laptop');
  await run('ip', '-n', relay, 'link', 'set', 'to-laptop', 'up');
  await run('ip', '-n', laptop, 'link', 'set', 'wifi', 'up');
}

/** Adds or takes away an address, by default of the laptop. */
async function have(
  what: 'add' | 'del',
  address: string,
  place = places.laptop,
  device = 'wifi',
): Promise<void> {
  // Without nodad an IPv6 address would first be tried out for a second.
  const options = what === 'add' && address.includes(':') ? ['nodad'] : [];
  await run('ip', '-n', place, 'address', what, address, 'dev', device, ...options);
}

async function removeNetwork(): Promise<void> {
  for (const place of Object.values(places)) {
    await removePlace(place);
    await rm(`/etc/netns/${place}`, { recursive: true, force: true });
  }
}

const echoApp = `require('node:net').createServer({ allowHalfOpen: true }, (s) => { s.on('error', () => {}); s.pipe(s); })
  .listen(0, '127.0.0.1', function () { console.log(this.address().port); })`;

interface Roaming {
  readonly connection: RunningProgram;
  /** Sends a line through the tunnel and waits for it to come back. */
  readonly say: (text: string) => Promise<void>;
  /** Waits until the laptop has said that in its log, since the last time that it was asked. */
  readonly hasNoted: (pattern: RegExp) => Promise<void>;
}

async function begin(t: ExecutionContext): Promise<Roaming> {
  const app = new RunningProgram(process.execPath, ['-e', echoApp], { place: places.relay });
  t.teardown(() => app.stop());
  const port = await app.line(/^\d+$/);
  const deployment = await Deployment.start({
    apps: [{ name: 'echo', target: `tcp://127.0.0.1:${port}` }],
    urlHost: name,
    places: { relay: places.relay, connector: places.relay, relayHost: '[::]' },
  });
  t.teardown(() => deployment.stop());
  const code = await deployment.admin('invite', 'user', 'alice', '--group', 'staff');
  const { env } = deployment.machine({ ZTNA_LOG_LEVEL: 'debug' });
  await mustRun(launchers.ztna, ['enroll', '-', '--password-stdin'], {
    env,
    place: places.laptop,
    input: `${code.trim()}\n${passwordOf('alice')}\n`,
  });
  const connection = new RunningProgram(launchers.ztna, ['connect', 'echo', '--stdio'], {
    env,
    place: places.laptop,
  });
  t.teardown(() => connection.stop());
  let seen = 0;
  return {
    connection,
    say: async (text) => {
      connection.child.stdin.write(`${text}\n`);
      await connection.line(new RegExp(`^${text}$`), 0, 60_000);
    },
    hasNoted: async (pattern) => {
      const line = await connection.until(
        () => connection.errorLines.slice(seen).find((each) => pattern.test(each)),
        String(pattern),
        60_000,
      );
      seen = connection.errorLines.indexOf(line, seen) + 1;
    },
  };
}

(missing === undefined ? test : test.skip)(
  'roaming - a connection outlasts another address, another family and sleep',
  async (t) => {
    t.timeout(240_000);
    try {
      await buildNetwork();
    } catch (error) {
      await removeNetwork();
      t.log(`left out: ${reasonOf(error)}`);
      t.pass();
      return;
    }
    t.teardown(removeNetwork);
    await have('add', '198.18.41.2/24');
    const { connection, say, hasNoted } = await begin(t);
    await say('at home');

    await have('del', '198.18.41.2/24');
    await have('add', '198.18.41.3/24');
    await hasNoted(/address_gone/);
    await say('at another address');

    await have('add', 'fd18:41::3/64');
    await have('del', '198.18.41.3/24');
    await hasNoted(/address_gone/);
    await say('with IPv6 alone');

    await have('add', '198.18.41.2/24');
    await have('del', 'fd18:41::3/64');
    await hasNoted(/address_gone/);
    await say('with IPv4 alone');

    connection.child.kill('SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, 4_000)); // sleep is a length of time
    connection.child.kill('SIGCONT');
    await say('after sleep');
    t.is(connection.lines.length, 5);
  },
);

if (missing !== undefined) console.error(`roaming: left out: ${missing}`);
