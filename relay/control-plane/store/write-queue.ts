import { AsyncLocalStorage } from 'node:async_hooks';
import { setImmediate } from 'node:timers/promises';
import { CompiledQuery, type Kysely } from 'kysely';
import { toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import type { Database } from './database.ts';
import type { Tx, WriteOptions } from './store.ts';

/** How an engine carries a transaction out; `runOnce` is one of its own each time. */
export interface WriteSteps {
  readonly attempt: <R>(runOnce: () => Promise<R>) => Promise<R>;
  readonly beforeCommit: (tx: Tx) => Promise<void>;
}

export interface WriteQueueOptions {
  /** By default a transaction is carried out as it comes. */
  readonly steps?: WriteSteps;
  /** How many changes that allow it may share one commit. Default 1. */
  readonly mostInCommit?: number;
}

// Compiled once: around every change that shares a commit.
const savepoint = CompiledQuery.raw('savepoint change');
const release = CompiledQuery.raw('release change');
const rollback = CompiledQuery.raw('rollback to change');

/** A change that waits for its turn. */
interface Job {
  readonly change: (tx: Tx) => Promise<unknown>;
  readonly apart: string | undefined;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** What became of a change whose transaction is durable. */
type Settled =
  | { readonly result: unknown; readonly listeners: readonly (() => void)[] }
  | { readonly error: unknown };

/**
 * Runs changes one after another, keeps the plain handle out of them, and tells of what became durable: what the stores
 * of every engine have in common. Where many wait that allow it, they share a commit, which is what takes long.
 */
export class WriteQueue {
  readonly #db: Kysely<Database>;
  readonly #steps: WriteSteps | undefined;
  readonly #mostInCommit: number;
  readonly #listeners = new WeakMap<Tx, (() => void)[]>();
  /** The transaction that the running code was called from, as long as it is open. */
  readonly #scope = new AsyncLocalStorage<{ isOpen: boolean }>();
  readonly #waiting: Job[] = [];
  /** Settles when nothing runs or waits. */
  #running: Promise<void> | undefined;

  constructor(db: Kysely<Database>, { steps, mostInCommit = 1 }: WriteQueueOptions = {}) {
    this.#db = db;
    this.#steps = steps;
    this.#mostInCommit = mostInCommit;
  }

  get db(): Kysely<Database> {
    if (this.#scope.getStore()?.isOpen) throw insideTransaction();
    return this.#db;
  }

  /** Settles when nothing runs or waits. */
  get idle(): Promise<unknown> {
    return this.#running ?? Promise.resolve();
  }

  write<T>(change: (tx: Tx) => Promise<T>, { apart }: WriteOptions = {}): Promise<T> {
    if (this.#scope.getStore()?.isOpen) return Promise.reject(insideTransaction());
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#waiting.push({ change, apart, resolve: resolve as Job['resolve'], reject });
    this.#running ??= this.#run();
    return promise;
  }

  afterCommit(tx: Tx, listener: () => void): void {
    const listeners = this.#listeners.get(tx);
    if (!listeners) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'this transaction was not begun by write' });
    }
    listeners.push(listener);
  }

  async #run(): Promise<void> {
    do {
      // What came in while this process was busy may share a commit, so all of it is read first.
      await (this.#mostInCommit > 1 ? setImmediate() : Promise.resolve());
      await this.#carryOut(this.#takeNext());
    } while (this.#waiting.length > 0);
    this.#running = undefined;
  }

  /** The next change, and those right behind it that may share its commit. */
  #takeNext(): Job[] {
    const taken = new Set<string>();
    let count = 0;
    for (const { apart } of this.#waiting.slice(0, this.#mostInCommit)) {
      if (apart === undefined || taken.has(apart)) break;
      taken.add(apart);
      count++;
    }
    return this.#waiting.splice(0, Math.max(1, count));
  }

  async #carryOut(jobs: readonly Job[]): Promise<void> {
    const runOnce = () => this.#runOnce(jobs);
    let all: readonly Settled[];
    try {
      all = await (this.#steps?.attempt(runOnce) ?? runOnce());
    } catch (error) {
      for (const { reject } of jobs) reject(error);
      return;
    }
    for (const [at, { resolve, reject }] of jobs.entries()) {
      const settled = all[at];
      try {
        if (!settled) continue;
        if ('error' in settled) throw settled.error;
        runAll(settled.listeners);
        resolve(settled.result);
      } catch (error) {
        reject(error);
      }
    }
  }

  #runOnce(jobs: readonly Job[]): Promise<readonly Settled[]> {
    return this.#db.transaction().execute(async (tx) => {
      const all: Settled[] = [];
      for (const job of jobs) {
        all.push(
          jobs.length === 1 ? await this.#change(tx, job) : await this.#changeApart(tx, job),
        );
      }
      await this.#steps?.beforeCommit(tx);
      return all;
    });
  }

  async #change(tx: Tx, { change }: Job): Promise<Settled> {
    const listeners: (() => void)[] = [];
    const scope = { isOpen: true };
    this.#listeners.set(tx, listeners);
    try {
      const result = await this.#scope.run(scope, () => change(tx));
      return { result, listeners };
    } finally {
      scope.isOpen = false;
    }
  }

  /** One change of several: when it throws it is undone alone, unless its engine has given all of them up. */
  async #changeApart(tx: Tx, job: Job): Promise<Settled> {
    await tx.executeQuery(savepoint);
    try {
      const settled = await this.#change(tx, job);
      await tx.executeQuery(release);
      return settled;
    } catch (error) {
      try {
        await tx.executeQuery(rollback);
        await tx.executeQuery(release);
      } catch {
        throw error;
      }
      return { error };
    }
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
