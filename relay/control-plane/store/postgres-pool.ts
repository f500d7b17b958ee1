import pg from 'pg';
import { setTimeout as delay } from 'node:timers/promises';
import { ZtnaError } from '../../../protocol/index.ts';
import { toBindable } from './bindable.ts';
import { storeUnavailable } from './store-unavailable.ts';
import type { Logger } from '../../../protocol/host/index.ts';
import type { PostgresPool, PostgresPoolClient } from 'kysely';
import type { PostgresTarget } from './postgres-url.ts';

const connectTimeoutMs = 5_000;
/** The server ends a statement, a wait for a lock included, after this. */
const statementTimeoutMs = 10_000;
/** We end it after this: nothing comes from a server that is cut off. */
const queryTimeoutMs = 12_000;
/** A process that is stopped in the middle of a transaction holds its locks no longer. */
const idleInTransactionMs = 10_000;
/** How often a store that is away is tried. */
const probeEveryMs = 500;
const maxConnections = 8;
/** Uses that wait for a connection; more are refused. */
const maxWaiting = 10_000;

/** Type ids of `bigint` columns and counts, and of sums. */
const numberTypes: readonly number[] = [20, 1_700];

/** Parses them into numbers; ours are below 2^53. */
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid, format): unknown =>
    numberTypes.includes(oid)
      ? parseNumber
      : pg.types.getTypeParser(oid, format)) as typeof pg.types.getTypeParser,
};

function parseNumber(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) {
    throw new ZtnaError('ERR_INTERNAL', { message: 'the store holds a number that is too large' });
  }
  return value;
}

/** Settings of every connection to the store. */
export function connectionSettings(target: PostgresTarget): pg.PoolConfig {
  return {
    ...target.connection,
    types,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5_000,
    connectionTimeoutMillis: connectTimeoutMs,
  };
}

/** True for errors by which another transaction stood in the way of this one. */
export function isConflict(error: unknown): boolean {
  return error instanceof pg.DatabaseError && (error.code === '40001' || error.code === '40P01');
}

/**
 * SQLSTATE classes of a server that cannot serve at present: connection, authorization, no such database, resources,
 * operator intervention (a statement's timeout too), system; and transactions that it ended, or that it may only read.
 */
function isOutageCode(code: string | undefined): boolean {
  return /^(?:08|28|3D|53|57|58)/.test(code ?? '') || /^(?:25P0[34]|25006|55P03)$/.test(code ?? '');
}

/** True for what the server, the way to it or our patience caused, rather than what was asked. */
export function isOutage(error: unknown): boolean {
  return !(error instanceof pg.DatabaseError) || isOutageCode(error.code);
}

/**
 * Connections to the store. While it is away every use fails at once, rather than each after a timeout of its own, and
 * it is tried every half second.
 */
export class GuardedPool implements PostgresPool {
  readonly options: object = {};
  readonly #pool: pg.Pool;
  readonly #settings: pg.PoolConfig;
  readonly #label: string;
  readonly #logger: Logger | undefined;
  readonly #waiting: (() => void)[] = [];
  readonly #abort = new AbortController();
  readonly #listeners = new Set<() => void>();
  #inUse = 0;
  #isAvailable = true;
  #probing: Promise<void> | undefined;
  #ending: Promise<void> | undefined;

  constructor(target: PostgresTarget, logger?: Logger) {
    this.#label = target.label;
    this.#logger = logger;
    this.#settings = connectionSettings(target);
    this.#pool = new pg.Pool({
      ...this.#settings,
      max: maxConnections,
      statement_timeout: statementTimeoutMs,
      query_timeout: queryTimeoutMs,
      idle_in_transaction_session_timeout: idleInTransactionMs,
    });
    this.#pool.on('error', () => {
      this.#suspect(); // an idle connection was lost
    });
  }

  get isAvailable(): boolean {
    return this.#isAvailable;
  }

  /** Calls `listener` each time that the store is back. */
  onAvailable(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async connect(): Promise<PostgresPoolClient> {
    await this.#takePlace();
    try {
      if (!this.#isAvailable) throw storeUnavailable();
      return this.#guard(await this.#pool.connect());
    } catch (cause) {
      this.#leavePlace();
      if (cause instanceof ZtnaError) throw cause;
      this.#suspect();
      throw storeUnavailable(cause);
    }
  }

  /** Waits outside of the pool, whose timeout is for connecting: a crowd is no sign of a store that is away. */
  async #takePlace(): Promise<void> {
    if (this.#inUse < maxConnections) this.#inUse += 1;
    else if (this.#waiting.length >= maxWaiting) throw storeUnavailable();
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #leavePlace(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#inUse -= 1;
  }

  /** Safe to call twice. */
  end(): Promise<void> {
    this.#abort.abort();
    this.#ending ??= this.#pool.end();
    return this.#ending;
  }

  #guard(client: pg.PoolClient): PostgresPoolClient {
    let isBroken = false;
    const query = async (text: string, values: readonly unknown[] = []) => {
      try {
        return await client.query(text, values.map(toBindable));
      } catch (error) {
        if (error instanceof ZtnaError) throw error;
        if (!isOutage(error)) throw error;
        // A lost connection, or a timeout of ours, after which it cannot be trusted.
        isBroken = true;
        this.#suspect();
        throw storeUnavailable(error);
      }
    };
    const onError = () => {
      isBroken = true; // lost between two statements; the next one says so
    };
    client.on('error', onError);
    return {
      query: query as unknown as PostgresPoolClient['query'],
      release: (destroy) => {
        client.off('error', onError);
        client.release(destroy === true || isBroken);
        this.#leavePlace();
      },
    };
  }

  /** Something failed: finds out whether it is the store that is away. */
  #suspect(): void {
    if (this.#abort.signal.aborted) return;
    this.#probing ??= this.#probe().finally(() => {
      this.#probing = undefined;
    });
  }

  async #probe(): Promise<void> {
    const { signal } = this.#abort;
    for (;;) {
      const failure = await this.#tryOnce();
      if (signal.aborted) return;
      if (failure === undefined) break;
      if (this.#isAvailable) {
        this.#isAvailable = false;
        this.#logger?.error('store_unavailable', { store: this.#label, error: failure });
      }
      await delay(probeEveryMs, undefined, { signal, ref: true }).catch(() => undefined);
    }
    if (this.#isAvailable) return;
    this.#isAvailable = true;
    this.#logger?.info('store_available', { store: this.#label });
    for (const listener of this.#listeners) listener();
  }

  /** Why a new connection cannot write, or undefined when it can. */
  async #tryOnce(): Promise<string | undefined> {
    const client = new pg.Client({ ...this.#settings, query_timeout: connectTimeoutMs });
    client.on('error', () => undefined);
    try {
      await client.connect();
      const { rows } = await client.query<{ standby: boolean }>(
        'select pg_is_in_recovery() as standby',
      );
      return rows[0]?.standby === false ? undefined : 'this server only stands by';
    } catch (error) {
      return error instanceof Error ? error.message || String(error) : String(error);
    } finally {
      // Not awaited: a server that is cut off never answers the goodbye.
      client.end().catch(() => undefined);
    }
  }
}
