import { spawn, spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from './deployment.ts';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { untilListening } from './listening.ts';

const versionsDir = '/usr/lib/postgresql';

function binDir(): string | undefined {
  if (!existsSync(versionsDir)) return undefined;
  const newest = readdirSync(versionsDir).sort((a, b) => Number(b) - Number(a))[0];
  const dir = join(versionsDir, newest ?? '', 'bin');
  return existsSync(join(dir, 'initdb')) ? dir : undefined;
}

/** Why there can be no server, or undefined when there can. */
export function missingServer(): string | undefined {
  return binDir() === undefined ? `no PostgreSQL server under ${versionsDir}` : undefined;
}

/** Why PostgreSQL and its tools cannot take part, or undefined when they can. */
export function missingPostgres(): string | undefined {
  const missing = missingServer();
  if (missing !== undefined) return missing;
  for (const program of ['psql', 'pgbench']) {
    if (spawnSync(program, ['--version']).error) return `${program} is not installed`;
  }
  return undefined;
}

/** Postgres refuses to run as root; an account that the machine has already takes its place. */
function unprivileged(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const accounts = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'));
  const account =
    accounts.find(([name]) => name === 'postgres') ?? accounts.find(([name]) => name === 'nobody');
  return { uid: Number(account?.[2]), gid: Number(account?.[3]) };
}

/** It accepts connections a while before it serves them. */
async function untilServing(port: number): Promise<void> {
  for (;;) {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'ztna', database: 'postgres' });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.end();
      return;
    } catch (error) {
      // 57P03: cannot connect now
      if (!(error instanceof pg.DatabaseError) || error.code !== '57P03') throw error;
      await delay(20);
    }
  }
}

export interface Postgres {
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * Starts a PostgreSQL server of its own in `dir` on a spare loopback port: user `ztna`, database `postgres`, trust. One
 * that was stopped is started again where it was left.
 */
export async function startPostgres(
  dir: string,
  options: {
    readonly maxConnections?: number;
    readonly port?: number;
    /** More lines of its configuration: `name=value`. */
    readonly settings?: readonly string[];
  } = {},
): Promise<Postgres> {
  const bin = binDir() ?? '';
  const account = unprivileged();
  mkdirSync(dir, { recursive: true });
  if (account) chownSync(dir, account.uid, account.gid);
  const as = { ...account, cwd: dir, env: { PATH: `${bin}:/usr/bin:/bin`, LC_ALL: 'C' } };
  const data = join(dir, 'data');
  if (!existsSync(data)) {
    const made = spawnSync(
      join(bin, 'initdb'),
      ['-D', data, '-A', 'trust', '-U', 'ztna', '-E', 'UTF8', '--no-sync'],
      as,
    );
    if (made.status !== 0) throw new Error(`initdb failed: ${String(made.stderr)}`);
  }
  const port = options.port ?? (await freePort());
  const settings = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${dir}`,
    'fsync=off',
    `max_connections=${String(options.maxConnections ?? 80)}`,
    ...(options.settings ?? []),
  ];
  const server = spawn(
    join(bin, 'postgres'),
    ['-D', data, ...settings.flatMap((setting) => ['-c', setting])],
    {
      ...as,
      stdio: 'ignore',
    },
  );
  const ended = new Promise<void>((resolve) => server.once('exit', () => resolve()));
  await untilListening(port);
  await untilServing(port);
  return {
    port,
    stop: async () => {
      server.kill('SIGINT'); // fast shutdown: does not wait for clients
      await ended;
    },
  };
}
