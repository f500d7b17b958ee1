import { chmodSync, closeSync, existsSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Kysely } from 'kysely';
import { columnNames, SqliteSnakeCase } from './column-names.ts';
import { migrate } from './migrate.ts';
import { openSqlite } from './sqlite.ts';
import { WriteQueue } from './write-queue.ts';
import type { DirectoryLock } from '../../directory-lock.ts';
import type { Database } from './database.ts';
import type { Store, Tx, WriteOptions } from './store.ts';

/** Opens `directory/store.sqlite` (made when missing, 0600), which the lock keeps for this process. */
export async function openSqliteStore(directory: string, lock: DirectoryLock): Promise<Store> {
  const path = join(directory, 'store.sqlite');
  createPrivateFile(path);
  const db = new Kysely<Database>({
    dialect: new SqliteSnakeCase({ database: openSqlite(path) }),
    plugins: [columnNames],
  });
  try {
    await migrate(db);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return new SqliteStore(db, lock);
}

/** Every commit waits for the disk with the event loop; others wait no longer than so many changes take. */
const mostInCommit = 64;

/** SQLite gives its journal files the mode of the main file, so that one has to be right from the start. */
function createPrivateFile(path: string): void {
  if (existsSync(path)) chmodSync(path, 0o600);
  else closeSync(openSync(path, 'wx', 0o600));
}

/** One process has it to itself, and its transactions run one after another: there is nothing to lock or announce. */
class SqliteStore implements Store {
  readonly engine = 'sqlite';
  readonly isAvailable = true;
  readonly #handle: Kysely<Database>;
  readonly #lock: DirectoryLock;
  readonly #queue: WriteQueue;
  #closing: Promise<void> | undefined;

  constructor(handle: Kysely<Database>, lock: DirectoryLock) {
    this.#handle = handle;
    this.#lock = lock;
    this.#queue = new WriteQueue(handle, { mostInCommit });
  }

  get db(): Kysely<Database> {
    return this.#queue.db;
  }

  write<T>(change: (tx: Tx) => Promise<T>, options?: WriteOptions): Promise<T> {
    return this.#queue.write(change, options);
  }

  afterCommit(tx: Tx, listener: () => void): void {
    this.#queue.afterCommit(tx, listener);
  }

  lockOrder(): Promise<void> {
    return Promise.resolve();
  }

  lockShared(): Promise<void> {
    return Promise.resolve();
  }

  announce(): void {
    // nobody else is there
  }

  onAnnounced(): () => void {
    return () => undefined;
  }

  onAvailable(): () => void {
    return () => undefined;
  }

  readClockMs(): Promise<null> {
    return Promise.resolve(null);
  }

  close(): Promise<void> {
    this.#closing ??= this.#queue.idle
      .then(() => this.#handle.destroy())
      .finally(() => {
        this.#lock.release();
      });
    return this.#closing;
  }
}
