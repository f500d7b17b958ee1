import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { missingServer, startPostgres, type Postgres } from './postgresql.ts';
import type { AddressInfo } from 'node:net';

/** A database of the shared server with a store of the newest schema and no rows, to make others from. */
export const storeTemplate = 'store_template';

/** Nothing of a run outlives its server. */
const forgetful = [
  'synchronous_commit=off',
  'full_page_writes=off',
  'wal_level=minimal',
  'max_wal_senders=0',
  'autovacuum=off',
];

/** Where test files ask for the server that a whole run shares. */
export const sharedVariable = 'ZTNA_TEST_POSTGRES';

/** One PostgreSQL server for every test file of a run, started when the first of them asks. */
export interface SharedPostgres {
  /** What `sharedVariable` says. */
  readonly address: string;
  stop(): Promise<void>;
}

/** Answers `GET /` with the port of the server, or with 404 and why there is none. */
export async function sharePostgres(): Promise<SharedPostgres> {
  const dir = mkdtempSync(join(tmpdir(), 'ztna-pg-'));
  chmodSync(dir, 0o755); // the server runs as somebody else
  let starting: Promise<Postgres> | undefined;
  const broker = createServer((_, response) => {
    const missing = missingServer();
    if (missing !== undefined) {
      response.writeHead(404).end(missing);
      return;
    }
    starting ??= startShared(dir);
    starting.then(
      ({ port }) => response.end(String(port)),
      (error: unknown) => response.writeHead(404).end(String(error)),
    );
  });
  broker.listen(0, '127.0.0.1');
  await once(broker, 'listening');
  return {
    address: `http://127.0.0.1:${String((broker.address() as AddressInfo).port)}`,
    stop: async () => {
      broker.close();
      broker.closeAllConnections();
      await (await starting?.catch(() => undefined))?.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

async function startShared(dir: string): Promise<Postgres> {
  const postgres = await startPostgres(join(dir, 'server'), {
    maxConnections: 400,
    settings: forgetful,
  });
  const server = `postgres://ztna@127.0.0.1:${String(postgres.port)}`;
  const client = new pg.Client(`${server}/postgres`);
  await client.connect();
  await client.query(`create database ${storeTemplate} template template0`);
  await client.end();
  // Loaded here: a run without PostgreSQL needs no store.
  const { openStore } = await import('../../relay/control-plane/store/index.ts');
  const directory = join(dir, 'store-template');
  const store = await openStore({ directory, url: `${server}/${storeTemplate}` });
  await store.close();
  return postgres;
}

let own: Promise<SharedPostgres> | undefined;

/** The port of the run's server; a file that runs alone has one of its own, which `stopOwnPostgres` stops. */
export async function sharedPostgresPort(): Promise<number> {
  let address = process.env[sharedVariable];
  if (address === undefined) {
    own ??= sharePostgres();
    ({ address } = await own);
  }
  const response = await fetch(address);
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return Number(text);
}

export async function stopOwnPostgres(): Promise<void> {
  await (await own)?.stop();
}
