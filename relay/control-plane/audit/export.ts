import * as v from 'valibot';
import { ZtnaError } from '../../../protocol/index.ts';
import type { AuditRecord } from './record.ts';

/** A record as it leaves the store: whole, so that the chain can be checked from an export alone. */
const exportedSchema = v.strictObject({
  writer: v.string(),
  position: v.number(),
  atMs: v.number(),
  actor: v.string(),
  action: v.string(),
  subject: v.string(),
  outcome: v.picklist(['ok', 'refused', 'failed']),
  ref: v.nullable(v.string()),
  user: v.nullable(v.string()),
  app: v.nullable(v.string()),
  details: v.record(v.string(), v.unknown()),
  previous: v.string(),
  hash: v.string(),
});
export type ExportedRecord = v.InferOutput<typeof exportedSchema>;

export function exportRecord(record: AuditRecord): ExportedRecord {
  const { userName, appName, detailsJson, previous, hash, ...rest } = record;
  const details = JSON.parse(detailsJson) as ExportedRecord['details'];
  return { ...rest, user: userName, app: appName, details, previous, hash };
}

/** Reads one line of an export back. Throws ERR_CONFIG_INVALID for what is none. */
export function parseExportedRecord(line: string): AuditRecord {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: 'this line is no audit record', cause });
  }
  const result = v.safeParse(exportedSchema, json);
  if (!result.success) {
    throw new ZtnaError('ERR_CONFIG_INVALID', { message: 'this line is no audit record' });
  }
  const { user, app, details, ...rest } = result.output;
  return { ...rest, userName: user, appName: app, detailsJson: JSON.stringify(details) };
}
