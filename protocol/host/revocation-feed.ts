import { ZtnaError } from '../errors.ts';
import type { Bundle } from '../bundle.ts';
import {
  logBatchSchema,
  type RevocationEntry,
  type RevocationSubjects,
  type Subject,
} from '../revocation.ts';
import { verifyStatement } from '../statement.ts';
import type { ControlClock } from './clock.ts';

/**
 * Entries are kept for this long after they came. A grant lives at most a minute, and one made after an entry
 * came was made at a later position, so nothing older can concern a grant that is still good.
 */
const keptForMs = 5 * 60_000;

/** Entries remembered as answered. */
const maxSeen = 16_384;

interface Kept {
  readonly incarnation: number;
  readonly entry: RevocationEntry;
  readonly atMs: number;
}

interface Waiter {
  readonly incarnation: number;
  readonly position: number;
  readonly settle: (isComplete: boolean) => void;
}

/** The revocation log as one enforcer knows it: who was revoked, and up to which position that is all there is. */
export class RevocationFeed {
  readonly #audience: string;
  readonly #clock: Pick<ControlClock, 'nowMs'>;
  /** The latest entry of each subject, in the order in which they came. */
  readonly #kept = new Map<string, Kept>();
  /** Positions that were answered, of this incarnation, the newest of them. */
  readonly #seen = new Set<number>();
  readonly #waiters = new Set<Waiter>();
  #incarnation = -1;
  #completeTo = -1;

  constructor(options: { readonly audience: string; readonly clock: Pick<ControlClock, 'nowMs'> }) {
    this.#audience = options.audience;
    this.#clock = options.clock;
  }

  /** Position up to which everything of ours is known; -1 before the first batch. */
  get completeTo(): number {
    return this.#completeTo;
  }

  /** Of the log; -1 before the first batch. */
  get incarnation(): number {
    return this.#incarnation;
  }

  /**
   * Takes a batch and answers the entries that were not known. What was told complete does not count: of several
   * control planes one may know a tunnel of ours that another does not, and tell of an entry about it later. An entry
   * may so be answered again, much later; it ends what was granted before its position and nothing else. Throws ERR_STATEMENT_REFUSED for a bad signature,
   * another audience or an incarnation that is past.
   */
  receive(statement: string, bundle: Bundle): RevocationEntry[] {
    const batch = verifyStatement('log', logBatchSchema, statement, bundle.grantKeys);
    if (batch.audience !== this.#audience || batch.incarnation < this.#incarnation) {
      throw new ZtnaError('ERR_STATEMENT_REFUSED', { reason: 'log_refused' });
    }
    if (batch.incarnation > this.#incarnation) {
      this.#incarnation = batch.incarnation;
      this.#completeTo = -1;
      this.#seen.clear();
    }
    const learned = batch.entries.filter(({ position }) => !this.#seen.has(position));
    for (const entry of learned) this.#keep(entry);
    this.#completeTo = Math.max(this.#completeTo, batch.completeTo);
    this.#forgetOld();
    for (const waiter of this.#waiters) {
      const answer = this.#isComplete(waiter);
      if (answer !== undefined) waiter.settle(answer);
    }
    return learned;
  }

  /**
   * Waits until everything up to `position` is known. False when that does not happen in time, or never can since
   * the log has begun anew.
   */
  async waitFor(position: number, incarnation: number, timeoutMs = 2_000): Promise<boolean> {
    const known = this.#isComplete({ incarnation, position });
    if (known !== undefined) return known;
    return new Promise((resolve) => {
      const waiter: Waiter = {
        incarnation,
        position,
        settle: (isComplete) => {
          clearTimeout(timer);
          this.#waiters.delete(waiter);
          resolve(isComplete);
        },
      };
      const timer = setTimeout(() => {
        waiter.settle(false);
      }, timeoutMs);
      this.#waiters.add(waiter);
    });
  }

  /** An entry about one of these subjects after that position, if there is one. Of an older incarnation, any is. */
  isRevokedAfter(
    subjects: RevocationSubjects,
    incarnation: number,
    position: number,
  ): RevocationEntry | undefined {
    for (const kind of subjectKinds) {
      const kept = this.#kept.get(`${kind}:${subjects[kind]}`);
      if (!kept) continue;
      const isLater =
        kept.incarnation > incarnation ||
        (kept.incarnation === incarnation && kept.entry.position > position);
      if (isLater) return kept.entry;
    }
    return undefined;
  }

  #isComplete(wanted: { incarnation: number; position: number }): boolean | undefined {
    if (this.#incarnation > wanted.incarnation) return false;
    if (this.#incarnation === wanted.incarnation && this.#completeTo >= wanted.position)
      return true;
    return undefined;
  }

  #keep(entry: RevocationEntry): void {
    this.#seen.add(entry.position);
    if (this.#seen.size > maxSeen) this.#seen.delete(this.#seen.values().next().value ?? -1);
    const key = `${entry.subject.kind}:${entry.subject.id}`;
    const known = this.#kept.get(key);
    const isOlder =
      known?.incarnation === this.#incarnation && known.entry.position > entry.position;
    if (isOlder) return;
    this.#kept.delete(key); // so that the map stays in order of arrival
    this.#kept.set(key, {
      incarnation: this.#incarnation,
      entry,
      atMs: this.#clock.nowMs() ?? Infinity,
    });
  }

  #forgetOld(): void {
    const nowMs = this.#clock.nowMs();
    if (nowMs === undefined) return;
    for (const [key, kept] of this.#kept) {
      if (kept.atMs === Infinity) this.#kept.set(key, { ...kept, atMs: nowMs });
      else if (kept.atMs > nowMs - keptForMs) return;
      else this.#kept.delete(key);
    }
  }
}

const subjectKinds: readonly Subject['kind'][] = [
  'user',
  'session',
  'device',
  'app',
  'connector',
  'tunnel',
];
