import { AsyncLocalStorage } from 'node:async_hooks';
import { chmodSync, existsSync, mkdirSync, openSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { CamelCasePlugin, Kysely, SqliteDialect, type Transaction } from 'kysely';
import { Migrator } from 'kysely/migration';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { lockDirectory, type DirectoryLock } from '../../directory-lock.ts';
import { migrations } from './migrations.ts';
import { openSqlite } from './sqlite.ts';
import type { Database } from './database.ts';

/** A transaction. While one is open, use it for every query: the plain handle would wait for its end. */
export type Tx = Transaction<Database>;

/** A transaction, or the plain handle for a read on its own. */
export type Reader = Kysely<Database>;

/** The orders that are appended to by one writer at a time, also across control planes. */
export type AppendOrder = 'audit' | 'revocation';

/** The control plane's durable state. */
export interface Store {
  /**
   * For reads outside a transaction. Inside `write` it throws ERR_INTERNAL, as a `write` within a `write` does:
   * one connection serves all, so they would wait for each other for ever.
   */
  readonly db: Reader;
  /** Runs `change` in a transaction; transactions run one after another. Rolled back when it throws. */
  write<T>(change: (tx: Tx) => Promise<T>): Promise<T>;
  /**
   * Calls `listener` once `tx` is durable and before the next transaction begins, in the order registered; never when
   * it rolls back. One that throws keeps none of the others from running.
   */
  afterCommit(tx: Tx, listener: () => void): void;
  /** Held until `tx` ends: appends to `order` follow each other, so that positions commit in order. */
  lockOrder(tx: Tx, order: AppendOrder): Promise<void>;
  /** Waits for what runs, closes the file and lets go of the directory. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * Opens `directory/store.sqlite` (made when missing, 0600 in 0700) and brings its schema up to date.
 * Throws ERR_CONFIG_LOCKED when another process has it, ERR_CONFIG_INVALID when a newer release wrote it.
 */
export async function openStore(options: { readonly directory: string }): Promise<Store> {
  mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  const lock = lockDirectory(join(options.directory, 'store.lock'));
  try {
    const path = join(options.directory, 'store.sqlite');
    createPrivateFile(path);
    const db = new Kysely<Database>({
      dialect: new SqliteDialect({ database: openSqlite(path) }),
      plugins: [new CamelCasePlugin({ maintainNestedObjectKeys: true })],
    });
    try {
      await migrate(db);
    } catch (error) {
      await db.destroy();
      throw error;
    }
    return new SqliteStore(db, lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}

/** SQLite gives its journal files the mode of the main file, so that one has to be right from the start. */
function createPrivateFile(path: string): void {
  if (existsSync(path)) chmodSync(path, 0o600);
  else closeSync(openSync(path, 'wx', 0o600));
}

async function migrate(db: Kysely<Database>): Promise<void> {
  const provider = { getMigrations: () => Promise.resolve(migrations) };
  const { error, results } = await new Migrator({ db, provider }).migrateToLatest();
  if (error === undefined) return;
  const failed = results?.find((result) => result.status === 'Error')?.migrationName;
  throw new ZtnaError('ERR_CONFIG_INVALID', {
    message: failed
      ? `the store could not be brought to ${failed}`
      : 'the store was written by another release of this program',
    hint: 'start the release that wrote it, or restore a backup',
    cause: error,
  });
}

class SqliteStore implements Store {
  readonly #db: Kysely<Database>;
  readonly #lock: DirectoryLock;
  readonly #listeners = new WeakMap<Tx, (() => void)[]>();
  /** The transaction that the running code was called from, as long as it is open. */
  readonly #scope = new AsyncLocalStorage<{ isOpen: boolean }>();
  /** Settles when the newest transaction and its listeners are over. */
  #newest: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(db: Kysely<Database>, lock: DirectoryLock) {
    this.#db = db;
    this.#lock = lock;
  }

  get db(): Kysely<Database> {
    if (this.#scope.getStore()?.isOpen) {
      throw insideTransaction();
    }
    return this.#db;
  }

  write<T>(change: (tx: Tx) => Promise<T>): Promise<T> {
    if (this.#scope.getStore()?.isOpen) return Promise.reject(insideTransaction());
    const written = this.#newest.then(() => this.#write(change));
    this.#newest = written.catch(() => undefined);
    return written;
  }

  async #write<T>(change: (tx: Tx) => Promise<T>): Promise<T> {
    const listeners: (() => void)[] = [];
    const scope = { isOpen: true };
    const result = await this.#db.transaction().execute(async (tx) => {
      this.#listeners.set(tx, listeners);
      try {
        return await this.#scope.run(scope, () => change(tx));
      } finally {
        scope.isOpen = false;
      }
    });
    runAll(listeners);
    return result;
  }

  afterCommit(tx: Tx, listener: () => void): void {
    const listeners = this.#listeners.get(tx);
    if (!listeners) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'this transaction was not begun by write' });
    }
    listeners.push(listener);
  }

  lockOrder(): Promise<void> {
    return Promise.resolve(); // transactions already run one after another
  }

  close(): Promise<void> {
    this.#closing ??= this.#newest
      .then(() => this.#db.destroy())
      .finally(() => {
        this.#lock.release();
      });
    return this.#closing;
  }
}

function insideTransaction(): ZtnaError {
  return new ZtnaError('ERR_INTERNAL', { message: 'inside a transaction, use its own handle' });
}

/** Runs every one, then throws what the first to fail threw. */
function runAll(listeners: readonly (() => void)[]): void {
  const failures: unknown[] = [];
  for (const listener of listeners) {
    try {
      listener();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw toZtnaError(failures[0]);
}
