import * as v from 'valibot';
import { verifyStatement, type VerifyingKey } from '../../../protocol/index.ts';
import { ReceiptChecker } from './receipts.ts';
import { chainStart, checkpointSchema, recordHash } from './record.ts';
import type { AuditRecord, Checkpoint } from './record.ts';
import type { Reader } from '../store/store.ts';

/**
 * The first record at which a chain is not what was written: `altered` (its own hash does not fit),
 * `deleted` (its position is missing), `reordered` (it does not follow the one before it), `checkpoint`
 * (a signed head says otherwise, or is not signed by us), or `receipt` (it tells that a tunnel was cut, without the word of
 * whoever cut it). A chain that does not begin with its first record is whole only behind a signed start.
 */
export interface AuditFault {
  readonly writer: string;
  readonly position: number;
  readonly fault: 'altered' | 'deleted' | 'reordered' | 'checkpoint' | 'receipt';
}

export interface AuditVerdict {
  readonly isIntact: boolean;
  readonly firstBad: AuditFault | null;
  readonly records: number;
  readonly checkpoints: number;
}

const pageSize = 1_000;

/**
 * Checks every chain in the store, every signed checkpoint, and every receipt of a cut tunnel. What was cut off after the last checkpoint can
 * only be missed by someone who kept a later one: pass those as `keptCheckpoints`.
 */
export async function verifyAudit(
  db: Reader,
  keys: readonly VerifyingKey[],
  keptCheckpoints: readonly string[] = [],
): Promise<AuditVerdict> {
  const rows = await db.selectFrom('checkpoints').select('statement').execute();
  const statements = [...rows.map((row) => row.statement), ...keptCheckpoints];
  const connectors = await db.selectFrom('connectors').select(['id', 'signingKey']).execute();
  const receipts = new ReceiptChecker(new Map(connectors.map((row) => [row.id, row.signingKey])));
  const verifier = new AuditVerifier(keys, statements, receipts);
  let after: Pick<AuditRecord, 'writer' | 'position'> = { writer: '', position: 0 };
  for (;;) {
    const page: AuditRecord[] = await db
      .selectFrom('audit')
      .selectAll()
      .where((eb) =>
        eb.or([
          eb('writer', '>', after.writer),
          eb.and([eb('writer', '=', after.writer), eb('position', '>', after.position)]),
        ]),
      )
      .orderBy('writer')
      .orderBy('position')
      .limit(pageSize)
      .execute();
    for (const record of page) verifier.add(record);
    const last = page.at(-1);
    if (!last) return verifier.finish();
    after = last;
  }
}

/** Checks records one by one, as they were written: of each writer in order. Without `receipts`, the chain alone. */
export class AuditVerifier {
  readonly #checkpoints = new Map<string, Checkpoint>();
  readonly #starts = new Map<string, Checkpoint>();
  readonly #heads = new Map<string, { readonly position: number; readonly hash: string }>();
  readonly #faults = new Map<string, AuditFault>();
  readonly #receipts: ReceiptChecker | undefined;
  #records = 0;
  #checked = 0;

  constructor(
    keys: readonly VerifyingKey[],
    statements: readonly string[],
    receipts?: ReceiptChecker,
  ) {
    this.#receipts = receipts;
    for (const statement of statements) this.#learnCheckpoint(statement, keys);
  }

  add(record: AuditRecord): void {
    this.#records++;
    const { writer, position } = record;
    if (this.#faults.has(writer)) return;
    const head = this.#headOf(writer);
    if (position > head.position + 1) this.#blame(writer, head.position + 1, 'deleted');
    else if (position <= head.position || record.previous !== head.hash) {
      this.#blame(writer, position, 'reordered');
    } else if (record.hash !== recordHash(record)) this.#blame(writer, position, 'altered');
    else {
      this.#heads.set(writer, { position, hash: record.hash });
      const isProved = this.#receipts?.accept(record, this.#starts.has(writer)) ?? true;
      if (!isProved) this.#blame(writer, position, 'receipt');
    }
    const checkpoint = this.#checkpoints.get(keyOf(writer, position));
    if (!checkpoint) return;
    this.#checked++;
    if (checkpoint.hash !== record.hash) this.#blame(writer, position, 'checkpoint');
  }

  finish(): AuditVerdict {
    for (const { writer, position } of this.#checkpoints.values()) {
      const headPosition = this.#headOf(writer).position;
      if (position > headPosition) this.#blame(writer, headPosition + 1, 'deleted');
    }
    const [firstBad = null] = [...this.#faults.values()].sort((a, b) => a.position - b.position);
    return {
      isIntact: firstBad === null,
      firstBad,
      records: this.#records,
      checkpoints: this.#checked,
    };
  }

  #headOf(writer: string): { readonly position: number; readonly hash: string } {
    const start = this.#starts.get(writer) ?? { position: 0, hash: chainStart };
    return this.#heads.get(writer) ?? start;
  }

  #learnCheckpoint(statement: string, keys: readonly VerifyingKey[]): void {
    try {
      const checkpoint = verifyStatement('checkpoint', checkpointSchema, statement, keys);
      const key = keyOf(checkpoint.writer, checkpoint.position);
      const known = this.#checkpoints.get(key);
      if (known && known.hash !== checkpoint.hash) {
        this.#blame(checkpoint.writer, checkpoint.position, 'checkpoint');
      }
      this.#checkpoints.set(key, checkpoint);
      const start = this.#starts.get(checkpoint.writer);
      if (checkpoint.isStart && checkpoint.position > (start?.position ?? 0)) {
        this.#starts.set(checkpoint.writer, checkpoint);
      }
    } catch {
      const claim = readClaim(statement);
      this.#blame(claim?.writer ?? '', claim?.position ?? 0, 'checkpoint');
    }
  }

  #blame(writer: string, position: number, fault: AuditFault['fault']): void {
    const known = this.#faults.get(writer);
    if (!known || position < known.position) this.#faults.set(writer, { writer, position, fault });
  }
}

function keyOf(writer: string, position: number): string {
  return JSON.stringify([writer, position]);
}

/** Which checkpoint a statement that cannot be believed claims to be. */
function readClaim(statement: string): Checkpoint | undefined {
  const payload = Buffer.from(statement.split('.')[2] ?? '', 'base64url').toString('utf8');
  try {
    const result = v.safeParse(checkpointSchema, JSON.parse(payload));
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}
