import { AsyncLocalStorage } from 'node:async_hooks';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import type { Kysely } from 'kysely';
import type { Database } from './database.ts';
import type { Tx } from './store.ts';

/** How an engine carries a transaction out; `runOnce` is one of its own each time. */
export interface WriteSteps {
  readonly attempt: <R>(runOnce: () => Promise<R>) => Promise<R>;
  readonly beforeCommit: (tx: Tx) => Promise<void>;
}

/**
 * Runs transactions one after another, keeps the plain handle out of them, and tells of what became durable: what
 * the stores of every engine have in common.
 */
export class WriteQueue {
  readonly #db: Kysely<Database>;
  readonly #steps: WriteSteps | undefined;
  readonly #listeners = new WeakMap<Tx, (() => void)[]>();
  /** The transaction that the running code was called from, as long as it is open. */
  readonly #scope = new AsyncLocalStorage<{ isOpen: boolean }>();
  /** Settles when the newest transaction and its listeners are over. */
  #newest: Promise<unknown> = Promise.resolve();

  constructor(db: Kysely<Database>, steps?: WriteSteps) {
    this.#db = db;
    this.#steps = steps;
  }

  get db(): Kysely<Database> {
    if (this.#scope.getStore()?.isOpen) throw insideTransaction();
    return this.#db;
  }

  /** Settles when nothing runs or waits. */
  get idle(): Promise<unknown> {
    return this.#newest;
  }

  write<T>(change: (tx: Tx) => Promise<T>): Promise<T> {
    if (this.#scope.getStore()?.isOpen) return Promise.reject(insideTransaction());
    const runOnce = () => this.#runOnce(change);
    const written = this.#newest.then(async () => {
      const { result, listeners } = await (this.#steps?.attempt(runOnce) ?? runOnce());
      runAll(listeners);
      return result;
    });
    this.#newest = written.catch(() => undefined);
    return written;
  }

  afterCommit(tx: Tx, listener: () => void): void {
    const listeners = this.#listeners.get(tx);
    if (!listeners) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'this transaction was not begun by write' });
    }
    listeners.push(listener);
  }

  async #runOnce<T>(
    change: (tx: Tx) => Promise<T>,
  ): Promise<{ readonly result: T; readonly listeners: readonly (() => void)[] }> {
    const listeners: (() => void)[] = [];
    const scope = { isOpen: true };
    const result = await this.#db.transaction().execute(async (tx) => {
      this.#listeners.set(tx, listeners);
      try {
        const changed = await this.#scope.run(scope, () => change(tx));
        await this.#steps?.beforeCommit(tx);
        return changed;
      } finally {
        scope.isOpen = false;
      }
    });
    return { result, listeners };
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
