import { escapeTerminal } from '../../../protocol/host/index.ts';
import { signStatement, ZtnaError, type SigningKey } from '../../../protocol/index.ts';
import { chainStart, checkpointSchema, recordHash } from './record.ts';
import type { AuditOutcome, AuditRecord, Checkpoint } from './record.ts';
import type { Reader, Store, Tx } from '../store/store.ts';

export interface AuditEntry {
  /** Who did it: `user:NAME`, `device:ID`, `connector:ID`, `relay:ID`, `admin:…`, `system`. */
  readonly actor: string;
  /** What was done, as `area.verb`: `user.add`, `session.sign_in`, `decision.made`. */
  readonly action: string;
  /** What it was done to: an id or a name. */
  readonly subject: string;
  readonly outcome: AuditOutcome;
  /** A decision id or another handle. */
  readonly ref?: string | null;
  /** Names of the user and app concerned, to filter by. */
  readonly user?: string | null;
  readonly app?: string | null;
  /** Further facts. Never a secret. */
  readonly details?: Readonly<Record<string, unknown>>;
}

export interface AuditQuery {
  readonly sinceMs?: number;
  readonly untilMs?: number; // exclusive
  readonly user?: string;
  readonly app?: string;
  /** Of each writer, only records after that position; all of those that are not named. */
  readonly after?: Readonly<Record<string, number>>;
  readonly limit?: number;
  /** The latest `limit` rather than the first; still oldest first. */
  readonly latest?: boolean;
}

export interface Pruning {
  readonly records: number;
  readonly firstKept: number;
}

/** The hash-chained audit log of one writer. */
export interface AuditLog {
  readonly writer: string;
  /**
   * Appends a record: in `tx`, so that it stands or falls with the change it tells of, else on its own.
   * Resolves once written; listeners hear it once it is durable.
   */
  append(entry: AuditEntry, tx?: Tx): Promise<AuditRecord>;
  /** Signs the head of the chain now; undefined while the chain is empty or its head is signed already. */
  checkpoint(): Promise<Checkpoint | undefined>;
  /**
   * Forgets this writer's records from before `beforeMs`, all but the newest, and signs where the kept chain starts.
   * Answers how many went and the first position that is kept. `actor` did it, as the chain goes on to say.
   */
  prune(beforeMs: number, actor: string): Promise<Pruning>;
  read(query?: AuditQuery): Promise<AuditRecord[]>;
  onAppend(listener: (record: AuditRecord) => void): () => void;
}

export interface AuditOptions {
  readonly store: Store;
  readonly key: SigningKey;
  /** One chain per writing process; a control plane keeps its own for life. */
  readonly writer: string;
  readonly clock: { nowMs(): number };
  /** A signed checkpoint after this many records. Default 256. */
  readonly checkpointEvery?: number;
}

const defaultCheckpointEvery = 256;

/** The largest record, in bytes of its details. */
const maxDetailsBytes = 65_536;

export function createAuditLog(options: AuditOptions): AuditLog {
  const { store, key, writer, clock } = options;
  const checkpointEvery = options.checkpointEvery ?? defaultCheckpointEvery;
  const listeners = new Set<(record: AuditRecord) => void>();

  const readHead = (db: Reader | Tx) =>
    db
      .selectFrom('audit')
      .select(['position', 'hash'])
      .where('writer', '=', writer)
      .orderBy('position', 'desc')
      .limit(1)
      .executeTakeFirst();

  const readSignedHead = (db: Reader | Tx) =>
    db
      .selectFrom('checkpoints')
      .select(['position', 'hash'])
      .where('writer', '=', writer)
      .orderBy('position', 'desc')
      .limit(1)
      .executeTakeFirst();

  const writeCheckpoint = async (
    tx: Tx,
    { position, hash }: { readonly position: number; readonly hash: string },
    kind: { readonly isStart?: true } = {},
  ): Promise<Checkpoint> => {
    const head = { writer, position, hash, atMs: clock.nowMs() };
    const checkpoint: Checkpoint = { ...head, ...kind };
    const statement = signStatement('checkpoint', checkpointSchema, checkpoint, key);
    await tx
      .insertInto('checkpoints')
      .values({ ...head, statement })
      .execute();
    return checkpoint;
  };

  const appendIn = async (tx: Tx, entry: AuditEntry): Promise<AuditRecord> => {
    await store.lockOrder(tx, `audit:${writer}`);
    const head = await readHead(tx);
    const detailsJson = JSON.stringify(entry.details ?? {}, toPrintable);
    if (Buffer.byteLength(detailsJson) > maxDetailsBytes) {
      throw new ZtnaError('ERR_INTERNAL', {
        message: `audit details of ${entry.action} are too large`,
      });
    }
    const unsealed = {
      writer,
      position: (head?.position ?? 0) + 1,
      atMs: clock.nowMs(),
      actor: printable(entry.actor),
      action: printable(entry.action),
      subject: printable(entry.subject),
      outcome: entry.outcome,
      ref: printableOrNull(entry.ref),
      userName: printableOrNull(entry.user),
      appName: printableOrNull(entry.app),
      detailsJson,
      previous: head?.hash ?? chainStart,
    };
    const record: AuditRecord = { ...unsealed, hash: recordHash(unsealed) };
    await tx.insertInto('audit').values(record).execute();
    if (record.position % checkpointEvery === 0) await writeCheckpoint(tx, record);
    store.afterCommit(tx, () => {
      for (const listener of listeners) listener(record);
    });
    return record;
  };

  return {
    writer,

    append: (entry, tx) => (tx ? appendIn(tx, entry) : store.write((own) => appendIn(own, entry))),

    checkpoint: () =>
      store.write(async (tx) => {
        await store.lockOrder(tx, `audit:${writer}`);
        const head = await readHead(tx);
        const signed = await readSignedHead(tx);
        if (!head || signed?.position === head.position) return undefined;
        return writeCheckpoint(tx, head);
      }),

    prune: (beforeMs, actor) =>
      store.write(async (tx) => {
        await store.lockOrder(tx, `audit:${writer}`);
        const own = tx.selectFrom('audit').where('writer', '=', writer);
        const firstYoung = await own
          .select((eb) => eb.fn.min('position').as('position'))
          .where('atMs', '>=', beforeMs)
          .executeTakeFirst();
        const head = await readHead(tx);
        const firstKept = Math.min(firstYoung?.position ?? Infinity, head?.position ?? 1);
        const last = await own
          .select(['position', 'hash'])
          .where('position', '=', firstKept - 1)
          .executeTakeFirst();
        if (!last) return { records: 0, firstKept };
        const pruned = await tx
          .deleteFrom('audit')
          .where('writer', '=', writer)
          .where('position', '<', firstKept)
          .executeTakeFirst();
        await tx
          .deleteFrom('checkpoints')
          .where('writer', '=', writer)
          .where('position', '<', firstKept)
          .execute();
        await writeCheckpoint(tx, last, { isStart: true });
        const records = Number(pruned.numDeletedRows);
        const details = { beforeMs, records, firstKept };
        const subject = `up to ${String(last.position)}`;
        await appendIn(tx, { actor, action: 'audit.prune', subject, outcome: 'ok', details });
        return { records, firstKept };
      }),

    read: async (query = {}) => {
      const order = query.latest ? 'desc' : 'asc';
      let select = store.db.selectFrom('audit').selectAll();
      if (query.sinceMs !== undefined) select = select.where('atMs', '>=', query.sinceMs);
      if (query.untilMs !== undefined) select = select.where('atMs', '<', query.untilMs);
      if (query.user !== undefined) select = select.where('userName', '=', query.user);
      if (query.app !== undefined) select = select.where('appName', '=', query.app);
      for (const [name, position] of Object.entries(query.after ?? {})) {
        select = select.where((eb) =>
          eb.or([eb('writer', '!=', name), eb('position', '>', position)]),
        );
      }
      if (query.limit !== undefined) select = select.limit(query.limit);
      const rows = await select
        .orderBy('atMs', order)
        .orderBy('writer', order)
        .orderBy('position', order)
        .execute();
      return query.latest ? rows.reverse() : rows;
    },

    onAppend(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The longest text in a record, in UTF-16 units: a name from a stranger may be of any length. */
const maxTextLength = 1_024;

/** Text that is one line wherever it is shown, and that every store gives back as it was hashed. */
function printable(text: string): string {
  const whole = text.length > maxTextLength ? text.slice(0, maxTextLength) + '…' : text;
  return escapeTerminal(whole.toWellFormed());
}

function printableOrNull(text: string | null | undefined): string | null {
  return text === null || text === undefined ? null : printable(text);
}

function toPrintable(_key: string, value: unknown): unknown {
  return typeof value === 'string' ? printable(value) : value;
}
