import { createHash } from 'node:crypto';
import type { PolicyFiles } from './source.ts';
import type { Reader, Tx } from '../store/store.ts';

/** Policy files as they were activated. */
export interface PolicyVersion {
  readonly version: number; // from 1
  readonly files: PolicyFiles;
  readonly digest: string;
  readonly actor: string;
  readonly activatedAtMs: number;
}

/** Keeps checked files as the next version, which is the active one from this commit on. */
export async function storePolicy(
  tx: Tx,
  policy: { readonly files: PolicyFiles; readonly actor: string; readonly nowMs: number },
): Promise<PolicyVersion> {
  const latest = await tx
    .selectFrom('policies')
    .select((eb) => eb.fn.max('version').as('version'))
    .executeTakeFirst();
  const next: PolicyVersion = {
    version: (latest?.version ?? 0) + 1,
    files: policy.files,
    digest: policyDigest(policy.files),
    actor: policy.actor,
    activatedAtMs: policy.nowMs,
  };
  const { files, ...row } = next;
  await tx
    .insertInto('policies')
    .values({ ...row, textsJson: JSON.stringify(files) })
    .execute();
  return next;
}

/** The active version, or that one; undefined when there is none. */
export async function readPolicy(
  db: Reader | Tx,
  version?: number,
): Promise<PolicyVersion | undefined> {
  let select = db.selectFrom('policies').selectAll();
  if (version !== undefined) select = select.where('version', '=', version);
  const row = await select.orderBy('version', 'desc').limit(1).executeTakeFirst();
  if (!row) return undefined;
  const { textsJson, ...rest } = row;
  return { ...rest, files: JSON.parse(textsJson) as PolicyFiles };
}

/** SHA-256, in hex, over names and texts. */
export function policyDigest(files: PolicyFiles): string {
  const entries = Object.entries(files).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(entries)).digest('hex');
}
