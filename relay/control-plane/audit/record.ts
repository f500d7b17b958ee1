import { createHash } from 'node:crypto';
import * as v from 'valibot';
import type { Selectable } from 'kysely';
import type { AuditTable } from '../store/database.ts';

export type AuditRecord = Selectable<AuditTable>;

export type AuditOutcome = AuditRecord['outcome'];

/** What `previous` says in the first record of a chain. */
export const chainStart = '0'.repeat(64);

/** SHA-256, in hex, over the record's canonical text: a JSON array, so that no value can imitate another. */
export function recordHash(record: Omit<AuditRecord, 'hash'>): string {
  const canonical = JSON.stringify([
    'ztna-audit-v1',
    record.writer,
    record.position,
    record.atMs,
    record.actor,
    record.action,
    record.subject,
    record.outcome,
    record.ref,
    record.userName,
    record.appName,
    record.detailsJson,
    record.previous,
  ]);
  return createHash('sha256').update(canonical).digest('hex');
}

/**
 * The head of one writer's chain at a moment, signed by the audit key: kind `checkpoint`. With `isStart` it says that
 * what came up to here was pruned: the chain that was kept starts behind it.
 */
export const checkpointSchema = v.strictObject({
  writer: v.string(),
  position: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  hash: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  atMs: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  isStart: v.exactOptional(v.literal(true)),
});
export type Checkpoint = v.InferOutput<typeof checkpointSchema>;
