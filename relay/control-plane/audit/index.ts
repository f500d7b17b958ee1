export { csvHeader, csvLine } from './csv.ts';
export { exportRecord, parseExportedRecord, type ExportedRecord } from './export.ts';
export {
  createAuditLog,
  type AuditEntry,
  type AuditLog,
  type AuditOptions,
  type AuditQuery,
  type Pruning,
} from './log.ts';
export {
  checkpointSchema,
  recordHash,
  type AuditOutcome,
  type AuditRecord,
  type Checkpoint,
} from './record.ts';
export { ocsfEvent, ocsfVersion, type OcsfEvent } from './ocsf.ts';
export { ReceiptChecker } from './receipts.ts';
export { AuditVerifier, verifyAudit, type AuditFault, type AuditVerdict } from './verify.ts';
export { Refusals } from './refusals.ts';
