import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { Kysely, PostgresDialect, sql } from 'kysely';
import { columnNames, PostgresSnakeCase } from './column-names.ts';
import pg from 'pg';
import { ZtnaError } from '../../../protocol/index.ts';
import { fullJitterDelayMs, systemCode } from '../../../protocol/host/index.ts';
import { migrate } from './migrate.ts';
import { PostgresListener } from './postgres-listener.ts';
import { connectionSettings, GuardedPool, isConflict, isOutage } from './postgres-pool.ts';
import { storeUnavailable } from './store-unavailable.ts';
import { readPostgresUrl, type PostgresTarget } from './postgres-url.ts';
import { WriteQueue } from './write-queue.ts';
import type { DirectoryLock } from '../../directory-lock.ts';
import type { Database } from './database.ts';
import type { Order, Store, StoreOptions, Topic, Tx } from './store.ts';

/** A transaction that others stood in the way of is tried so often. */
const maxAttempts = 12;
/** Without an announcement, others' changes are looked for this often. */
const pollEveryMs = 1_500;
const retryEveryMs = 1_000;

/** Opens a PostgreSQL store; `lock` is the directory's, released with it. */
export async function openPostgresStore(
  options: StoreOptions & { readonly url: string },
  lock: DirectoryLock,
): Promise<Store> {
  const { logger, isPatient } = options;
  const target = await readPostgresUrl(options.url);
  let hasWaited = false;
  for (;;) {
    try {
      await prepareSchema(target);
      break;
    } catch (error) {
      const isOurs = error instanceof ZtnaError;
      // A migration that failed because the server left is no fault of the schema.
      const cause = isOurs ? error.cause : error;
      if (isOurs && (cause === undefined || !isOutage(cause))) throw error;
      if (!isOutage(cause)) throw cannotReach(target, cause);
      if (!isPatient) throw cannotReach(target, cause);
      if (!hasWaited) {
        const text = cause instanceof Error ? cause.message || String(cause) : String(cause);
        logger?.error('store_unavailable', { store: target.label, error: text });
      }
      hasWaited = true;
      await delay(retryEveryMs);
    }
  }
  if (hasWaited) logger?.info('store_available', { store: target.label });
  return new PostgresStore(target, new GuardedPool(target, logger), lock);
}

function cannotReach(target: PostgresTarget, cause: unknown): ZtnaError {
  const why = cause instanceof Error ? cause.message || String(cause) : String(cause);
  return new ZtnaError('ERR_RELAY_UNAVAILABLE', {
    message: `the store at ${target.label} cannot be used: ${why}`,
    reason: 'store_unavailable',
    hint: hintFor(cause),
    cause,
  });
}

/** What to look at first, by SQLSTATE, and by what the socket or TLS said. */
function hintFor(cause: unknown): string {
  const code = systemCode(cause) ?? '';
  if (code === '28P01') {
    return 'check user and password: passwordfile= in the URL, PGPASSWORD or PGPASSFILE';
  }
  if (code === '28000') return 'allow this user and host in pg_hba.conf of the server';
  if (code === '3D000') return 'make the database: createdb --owner=USER DATABASE';
  if (code === '42501')
    return 'the user must be the owner of the database, or may create a schema in it';
  if (/CERT|ISSUER|SIGNED|VERIFY_LEAF/.test(code)) {
    return 'name the authority of the server’s certificate (sslrootcert=FILE), and the host as that certificate does';
  }
  return 'check host and port in the URL of the store, and that PostgreSQL runs there';
}

/** Makes the schema and its tables. One process at a time does, and no statement of it is timed. */
async function prepareSchema(target: PostgresTarget): Promise<void> {
  const { schema } = target;
  const pool = new pg.Pool({ ...connectionSettings(target), max: 2 });
  pool.on('error', () => undefined);
  const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool }) });
  try {
    await db.connection().execute(async (guard) => {
      const key = lockKey(schema, 'migration');
      await sql`select pg_advisory_lock(${key})`.execute(guard);
      try {
        await sql`create schema if not exists ${sql.id(schema)}`.execute(guard);
        await migrate(db, schema);
      } finally {
        await sql`select pg_advisory_unlock(${key})`.execute(guard);
      }
    });
  } finally {
    await db.destroy().catch(() => undefined);
  }
}

/** Locks are the whole database's; another schema in it has others. */
function lockKey(schema: string, order: string): bigint {
  return createHash('sha256')
    .update(JSON.stringify(['ztna', schema, order]))
    .digest()
    .readBigInt64BE();
}

class PostgresStore implements Store {
  readonly engine = 'postgresql';
  readonly #target: PostgresTarget;
  readonly #pool: GuardedPool;
  readonly #lock: DirectoryLock;
  readonly #handle: Kysely<Database>;
  readonly #queue: WriteQueue;
  readonly #channel: string;
  /** Tells our own announcements from those of others. */
  readonly #self = randomBytes(8).toString('hex');
  readonly #topics = new WeakMap<Tx, Set<Topic>>();
  readonly #held = new WeakMap<Tx, Set<string>>();
  readonly #announced = new Set<(topic: Topic | null) => void>();
  readonly #listener: PostgresListener;
  readonly #poll: NodeJS.Timeout;
  #closing: Promise<void> | undefined;

  constructor(target: PostgresTarget, pool: GuardedPool, lock: DirectoryLock) {
    this.#target = target;
    this.#pool = pool;
    this.#lock = lock;
    this.#channel = `ztna_${target.schema}`;
    this.#handle = new Kysely<Database>({
      dialect: new PostgresSnakeCase({ pool }),
      plugins: [columnNames],
    });
    // One change to a commit: a lock that a change took would be lost with its savepoint.
    this.#queue = new WriteQueue(this.#handle, {
      steps: {
        attempt: (runOnce) => this.#attempt(runOnce),
        beforeCommit: (tx) => this.#tellOthers(tx),
      },
    });
    this.#listener = new PostgresListener(target, this.#channel, (payload) => {
      this.#onNotice(payload);
    });
    this.#listener.start();
    this.#poll = setInterval(() => {
      this.#onNotice(null);
    }, pollEveryMs);
    pool.onAvailable(() => {
      this.#onNotice(null);
    });
  }

  get db(): Kysely<Database> {
    return this.#queue.db;
  }

  get isAvailable(): boolean {
    return this.#pool.isAvailable;
  }

  write<T>(change: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#queue.write(change);
  }

  afterCommit(tx: Tx, listener: () => void): void {
    this.#queue.afterCommit(tx, listener);
  }

  async lockOrder(tx: Tx, order: Order): Promise<void> {
    if (!this.#take(tx, order)) return;
    await sql`select pg_advisory_xact_lock(${this.#keyOf(order)})`.execute(tx);
  }

  async lockShared(tx: Tx, order: Order): Promise<void> {
    if (this.#held.get(tx)?.has(order) || !this.#take(tx, `shared ${order}`)) return;
    await sql`select pg_advisory_xact_lock_shared(${this.#keyOf(order)})`.execute(tx);
  }

  announce(tx: Tx, topic: Topic): void {
    const topics = this.#topics.get(tx);
    if (topics) topics.add(topic);
    else this.#topics.set(tx, new Set([topic]));
  }

  onAnnounced(listener: (topic: Topic | null) => void): () => void {
    this.#announced.add(listener);
    return () => this.#announced.delete(listener);
  }

  onAvailable(listener: () => void): () => void {
    return this.#pool.onAvailable(listener);
  }

  async readClockMs(): Promise<number> {
    const { rows } = await sql<{ ms: number }>`
      select floor(extract(epoch from clock_timestamp()) * 1000)::bigint as ms
    `.execute(this.db);
    const [row] = rows;
    if (!row) throw storeUnavailable();
    return row.ms;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#poll);
    this.#announced.clear();
    await this.#queue.idle;
    this.#listener.stop();
    try {
      await this.#handle.destroy();
      await this.#pool.end(); // nothing may have been asked of it through Kysely
    } finally {
      this.#lock.release();
    }
  }

  #keyOf(order: Order): bigint {
    return lockKey(this.#target.schema, order);
  }

  /** True when `tx` does not hold it yet. */
  #take(tx: Tx, name: string): boolean {
    const held = this.#held.get(tx) ?? new Set();
    if (held.has(name)) return false;
    this.#held.set(tx, held.add(name));
    return true;
  }

  async #attempt<R>(runOnce: () => Promise<R>): Promise<R> {
    for (let attempt = 0; ; attempt++) {
      if (!this.#pool.isAvailable) throw storeUnavailable();
      try {
        return await runOnce();
      } catch (error) {
        if (!isConflict(error)) throw error;
        if (attempt + 1 >= maxAttempts) throw storeUnavailable(error);
      }
      await delay(fullJitterDelayMs(attempt, { capMs: 250 }));
    }
  }

  async #tellOthers(tx: Tx): Promise<void> {
    for (const topic of this.#topics.get(tx) ?? []) {
      const payload = `${this.#self} ${topic}`;
      await sql`select pg_notify(${this.#channel}, ${payload})`.execute(tx);
    }
  }

  #onNotice(payload: string | null): void {
    const [from, topic] = payload?.split(' ') ?? [];
    if (from === this.#self) return;
    for (const listener of this.#announced) listener((topic as Topic | undefined) ?? null);
  }
}
