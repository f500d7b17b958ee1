import * as v from 'valibot';
import { idSchema } from './id.ts';
import { natural, reason } from './schema.ts';

/** What a log entry is about. */
export const subjectSchema = v.variant('kind', [
  v.strictObject({ kind: v.literal('user'), id: idSchema('user') }),
  v.strictObject({ kind: v.literal('session'), id: idSchema('session') }),
  v.strictObject({ kind: v.literal('device'), id: idSchema('device') }),
  v.strictObject({ kind: v.literal('app'), id: idSchema('app') }),
  v.strictObject({ kind: v.literal('connector'), id: idSchema('connector') }),
  v.strictObject({ kind: v.literal('tunnel'), id: idSchema('tunnel') }),
]);
export type Subject = v.InferOutput<typeof subjectSchema>;

/** One entry of the ordered revocation log. Positions ascend by one within an incarnation. */
export const revocationEntrySchema = v.strictObject({
  position: natural,
  action: v.picklist(['revoke', 'suspend']),
  subject: subjectSchema,
  reason,
});
export type RevocationEntry = v.InferOutput<typeof revocationEntrySchema>;

/**
 * Entries pushed to one audience (a connector, device or relay id), which with this batch knows all of its
 * own up to `completeTo`: kind `log`. An empty batch is a heartbeat.
 */
export const logBatchSchema = v.strictObject({
  audience: v.string(),
  incarnation: natural,
  entries: v.pipe(v.array(revocationEntrySchema), v.maxLength(256)),
  completeTo: natural,
});
export type LogBatch = v.InferOutput<typeof logBatchSchema>;

/** The ids by which a tunnel or an unexpired grant can be revoked. */
export interface RevocationSubjects {
  readonly user: string;
  readonly session: string;
  readonly device: string;
  readonly app: string;
  readonly connector: string;
  readonly tunnel: string;
}

/** A grant, as far as an entry may end what it permits. */
export interface Granted extends RevocationSubjects {
  readonly incarnation: number;
  /** In the log, read before the decision. */
  readonly position: number;
}

/** True when an entry ends what was granted: it is about it, and was not known yet when that was decided. */
export function isEnding(
  entry: Pick<RevocationEntry, 'subject' | 'position'>,
  incarnation: number,
  granted: Granted,
): boolean {
  const isLater =
    incarnation > granted.incarnation ||
    (incarnation === granted.incarnation && entry.position > granted.position);
  return isLater && isAbout(entry.subject, granted);
}

/** True when an entry about `subject` concerns a tunnel or grant with those ids. */
export function isAbout(subject: Subject, ids: RevocationSubjects): boolean {
  return ids[subject.kind] === subject.id;
}
