import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onExit } from './clean-up.ts';
import { startPostgres, type Postgres } from '../support/postgresql.ts';

/** A PostgreSQL server that relays in any namespace reach by its socket, and that can be taken away for a while. */
export class Database {
  /** For `--store`. */
  readonly url: string;
  readonly #dir: string;
  readonly #forget: () => void;
  #server: Postgres | undefined;

  private constructor(dir: string, server: Postgres) {
    this.#dir = dir;
    this.#server = server;
    this.url = `postgres://ztna@localhost:${server.port}/postgres?host=${encodeURIComponent(dir)}&sslmode=disable`;
    this.#forget = onExit(() => this.remove());
  }

  static async start(): Promise<Database> {
    const dir = await mkdtemp(join(tmpdir(), 'ztna-faults-database-'));
    await chmod(dir, 0o755); // the server runs as somebody else
    return new Database(dir, await startPostgres(dir, { maxConnections: 200 }));
  }

  /** Takes the server away under whoever is connected. */
  async stop(): Promise<void> {
    await this.#server?.stop();
    this.#server = undefined;
  }

  /** Brings it back at the same address with what it held. */
  async startAgain(): Promise<void> {
    const port = Number(new URL(this.url).port);
    this.#server = await startPostgres(this.#dir, { maxConnections: 200, port });
  }

  async remove(): Promise<void> {
    await this.stop();
    await rm(this.#dir, { recursive: true, force: true });
    this.#forget();
  }
}
