import { raiseCounter, raiseCounterTo, readCounter } from '../store/meta.ts';
import type { RevocationEntry, Subject } from '../../../protocol/index.ts';
import type { Reader, Store, Tx } from '../store/store.ts';

/** Where the log stands. A restored backup raises the incarnation, and positions start anew. */
export interface LogHead {
  readonly incarnation: number;
  readonly position: number; // 0: empty
}

export interface NewRevocation {
  readonly action: RevocationEntry['action'];
  readonly subject: Subject;
  readonly reason: string;
}

/** The ordered log of ended permissions. */
export interface RevocationLog {
  /** Appends within the change that causes it; positions ascend by one. Listeners hear it after the commit. */
  append(tx: Tx, revocation: NewRevocation): Promise<RevocationEntry>;
  /** Entries after `position`, oldest first, at most `limit`. */
  since(db: Reader | Tx, position: number, limit?: number): Promise<RevocationEntry[]>;
  head(db: Reader | Tx): Promise<LogHead>;
  /** Starts a new incarnation: after a restore, everything a peer knows of the log is void. */
  raiseIncarnation(tx: Tx): Promise<number>;
  /** Calls `listener` for each entry once it is durable, in order. Answers how to stop. */
  onAppend(listener: (entry: RevocationEntry) => void): () => void;
}

/** Entries read at once, unless the caller says otherwise. */
const defaultLimit = 256;

/** The log of `store`; its first incarnation is 1. */
export async function openRevocationLog(
  store: Store,
  clock: { nowMs(): number },
): Promise<RevocationLog> {
  await store.write((tx) => raiseCounterTo(tx, 'incarnation', 1));
  const listeners = new Set<(entry: RevocationEntry) => void>();

  const head = async (db: Reader | Tx): Promise<LogHead> => {
    const incarnation = await readCounter(db, 'incarnation');
    const row = await db
      .selectFrom('revocations')
      .select((eb) => eb.fn.max('position').as('position'))
      .where('incarnation', '=', incarnation)
      .executeTakeFirst();
    return { incarnation, position: row?.position ?? 0 };
  };

  return {
    head,

    async append(tx, { action, subject, reason }) {
      await store.lockOrder(tx, 'revocation');
      const { incarnation, position } = await head(tx);
      const entry: RevocationEntry = { position: position + 1, action, subject, reason };
      await tx
        .insertInto('revocations')
        .values({
          incarnation,
          position: entry.position,
          action,
          subjectKind: subject.kind,
          subjectId: subject.id,
          reason,
          atMs: clock.nowMs(),
        })
        .execute();
      store.announce(tx, 'revocation');
      store.afterCommit(tx, () => {
        for (const listener of listeners) listener(entry);
      });
      return entry;
    },

    async since(db, position, limit = defaultLimit) {
      const rows = await db
        .selectFrom('revocations')
        .selectAll()
        .where('incarnation', '=', await readCounter(db, 'incarnation'))
        .where('position', '>', position)
        .orderBy('position')
        .limit(limit)
        .execute();
      return rows.map((row) => ({
        position: row.position,
        action: row.action,
        subject: { kind: row.subjectKind, id: row.subjectId } as Subject,
        reason: row.reason,
      }));
    },

    async raiseIncarnation(tx) {
      await store.lockOrder(tx, 'revocation');
      store.announce(tx, 'revocation');
      return raiseCounter(tx, 'incarnation');
    },

    onAppend(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
