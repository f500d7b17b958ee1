import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingServer, startPostgres, type Postgres } from './postgresql.ts';
import type { AddressInfo } from 'node:net';

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
    starting ??= startPostgres(join(dir, 'server'), { maxConnections: 400 });
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
