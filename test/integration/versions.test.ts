import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { connect, createServer, type AddressInfo, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import anyTest, { type TestFn } from 'ava';
import { Deployment } from '../support/deployment.ts';
import { launchers, type Commands } from '../support/program.ts';

/** Earlier programs: the last commit of each version of the wire, and what is mixed with the present ones. */
const releases = [
  { commit: '4f62222', version: 2, mixtures: ['ends', 'relay', 'ztna', 'connector'] },
  { commit: 'b609d07', version: 1, mixtures: ['ends', 'relay'] },
] as const;
const top = fileURLToPath(new URL('../..', import.meta.url));
const run = promisify(execFile);

interface Context {
  /** The programs of each commit, as far as the clone holds it. */
  older: ReadonlyMap<string, Commands>;
  dir: string;
  echo: Server;
}
const test = anyTest as TestFn<Context>;

test.before('the programs of before, and an app', async (t) => {
  t.timeout(60_000);
  t.context.dir = await mkdtemp(join(tmpdir(), 'ztna-older-'));
  const older = new Map<string, Commands>();
  for (const { commit } of releases) {
    try {
      older.set(commit, await unpackOlder(t.context.dir, commit));
    } catch (error) {
      t.log(`skipped: this clone does not hold commit ${commit} (${String(error).split('\n')[0]})`);
    }
  }
  t.context.older = older;
  t.context.echo = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  t.context.echo.listen(0, '127.0.0.1');
  await once(t.context.echo, 'listening');
});

test.after.always('remove', async (t) => {
  t.context.echo.close();
  await rm(t.context.dir, { recursive: true, force: true });
});

/** The sources of that commit with the libraries of this one. Rejects where there is no such commit. */
async function unpackOlder(dir: string, commit: string): Promise<Commands> {
  const archive = join(dir, `${commit}.tar`);
  await run('git', ['-C', top, 'archive', '--output', archive, commit]);
  const root = join(dir, commit);
  await mkdir(root);
  await run('tar', ['-xf', archive, '-C', root]);
  await symlink(join(top, 'node_modules'), join(root, 'node_modules'));
  return {
    ztna: join(root, 'client/ztna'),
    connector: join(root, 'connector/ztna-connector'),
    relay: join(root, 'relay/ztna-relay'),
  };
}

/** Sends that many bytes through a local port and answers the digest of what comes back. */
async function echoed(port: number, data: Buffer): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1' });
  const hash = createHash('sha256');
  socket.on('data', (chunk) => hash.update(chunk));
  socket.end(data);
  await once(socket, 'close');
  return hash.digest('hex');
}

const mixtures = {
  ends: ['agent and connector of version', ['ztna', 'connector']],
  relay: ['a relay of version', ['relay']],
  ztna: ['an agent of version', ['ztna']],
  connector: ['a connector of version', ['connector']],
} as const;

for (const release of releases) {
  for (const mixture of release.mixtures) {
    const [title, old] = mixtures[mixture];
    test.serial(
      `versions - ${title} ${release.version} among present programs: connects and moves bytes`,
      async (t) => {
        t.timeout(120_000);
        const older = t.context.older.get(release.commit);
        const { echo } = t.context;
        if (!older) {
          t.pass('skipped');
          return;
        }
        const commands = {
          ...launchers,
          ...Object.fromEntries(old.map((name) => [name, older[name]])),
        };
        const { port: target } = echo.address() as AddressInfo;
        const deployment = await Deployment.start({
          apps: [{ name: 'echo', target: `tcp://127.0.0.1:${target}` }],
          commands,
        });
        t.teardown(() => deployment.stop());
        const machine = await deployment.enrol();
        const { port } = await deployment.connect(machine, 'echo');
        const data = randomBytes(3_000_000);
        t.is(await echoed(port, data), createHash('sha256').update(data).digest('hex'));
        // What the two releases have in common is what is signed into the grant.
        const [row] = (await deployment.admin('tunnel', 'list', '--json')).split('\n');
        const { state, version = 1 } = JSON.parse(row ?? '{}') as {
          state: string;
          version?: number;
        };
        t.deepEqual({ state, version }, { state: 'open', version: release.version });
      },
    );
  }
}
