import { join } from 'node:path';
import { mkdirSync } from 'node:fs';
import { lockDirectory } from '../../directory-lock.ts';
import type { Kysely, Transaction } from 'kysely';
import type { Logger } from '../../../protocol/host/index.ts';
import type { Database } from './database.ts';

/** A transaction. While one is open, use it for every query: the plain handle would wait for its end. */
export type Tx = Transaction<Database>;

/** A transaction, or the plain handle for a read on its own. */
export type Reader = Kysely<Database>;

/**
 * What writers of several processes must do one after another. `revocation`: the log, and with it everything that
 * permission rests on; those who grant hold it shared. `audit:…`: one writer's chain. `user:…`: what is counted of a user.
 */
export type Order = 'revocation' | `audit:${string}` | `user:${string}`;

/** What one control plane tells the others of; what has changed, they read for themselves. */
export type Topic =
  'revocation' | 'policy' | 'bundle' | 'relays' | 'tunnels' | 'verify' | `verify:${string}`;

/** How a change may be carried out. */
export interface WriteOptions {
  /**
   * What it is about. It may then share a commit with changes that are about something else: it reads nothing in memory
   * that their listeners change after a commit. One that fails is undone alone.
   */
  readonly apart?: string;
}

/** The control plane's durable state. */
export interface Store {
  readonly engine: 'sqlite' | 'postgresql';
  /**
   * For reads outside a transaction. Inside `write` it throws ERR_INTERNAL, as a `write` within a `write` does:
   * one connection may serve all, so they would wait for each other for ever.
   */
  readonly db: Reader;
  /**
   * Runs `change` in a transaction; those of one process run one after another. Rolled back when it throws. `change`
   * may run again, in a new transaction, when that of another process stood in its way.
   * Throws ERR_RELAY_UNAVAILABLE with reason `store_unavailable` while the store is away.
   */
  write<T>(change: (tx: Tx) => Promise<T>, options?: WriteOptions): Promise<T>;
  /**
   * Calls `listener` once `tx` is durable and before the next transaction begins, in the order registered; never when
   * it, or the change that registered it, rolls back. One that throws keeps none of the others from running.
   */
  afterCommit(tx: Tx, listener: () => void): void;
  /** Held until `tx` ends, by one transaction of all processes: what is appended under it commits in order. */
  lockOrder(tx: Tx, order: Order): Promise<void>;
  /** Held until `tx` ends, by any number of transactions, while none has it by `lockOrder`. */
  lockShared(tx: Tx, order: Order): Promise<void>;
  /** Wakes the other processes on this store once `tx` is durable. A hint that may be lost. */
  announce(tx: Tx, topic: Topic): void;
  /**
   * Calls `listener` when another process may have changed something, at least every two seconds; null: anything.
   * Never called for a store that one process has to itself. Answers how to stop.
   */
  onAnnounced(listener: (topic: Topic | null) => void): () => void;
  /** Calls `listener` each time that the store is back after it was away. Answers how to stop. */
  onAvailable(listener: () => void): () => void;
  /** False while the store is away. */
  readonly isAvailable: boolean;
  /** The store's own clock, in milliseconds of Unix time; null where it has none but this machine's. */
  readClockMs(): Promise<number | null>;
  /** Waits for what runs and lets go of everything. Safe to call twice. */
  close(): Promise<void>;
}

export interface StoreOptions {
  /** Where SQLite's file lies; a control plane holds its own in any case. Made when missing. */
  readonly directory: string;
  /** `postgres://…`; else SQLite. */
  readonly url?: string | null | undefined;
  readonly logger?: Logger | undefined;
  /** Waits for a store that is away, saying so, rather than throwing ERR_RELAY_UNAVAILABLE. */
  readonly isPatient?: boolean | undefined;
}

/**
 * Opens the store and brings its schema up to date.
 * Throws ERR_CONFIG_LOCKED when another process has the directory, ERR_CONFIG_INVALID when a newer release wrote the
 * store or its URL cannot be used.
 */
export async function openStore(options: StoreOptions): Promise<Store> {
  const { directory, url } = options;
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const lock = lockDirectory(join(directory, 'store.lock'));
  try {
    if (typeof url === 'string') {
      const { openPostgresStore } = await import('./postgres-store.ts');
      return await openPostgresStore({ ...options, url }, lock);
    }
    const { openSqliteStore } = await import('./sqlite-store.ts');
    return await openSqliteStore(directory, lock);
  } catch (error) {
    lock.release();
    throw error;
  }
}
