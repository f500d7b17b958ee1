import { setTimeout as delay } from 'node:timers/promises';
import { callAdmin } from '../../relay/cli/admin-client.ts';
import type { Deployment } from './deployment.ts';

/** A record of the audit log as the relay tells it. */
export interface AuditRow {
  readonly position: number;
  /** In control time. */
  readonly atMs: number;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly outcome: string;
  readonly ref: string | null;
  readonly user: string | null;
  readonly app: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

/** The newest records, oldest first. */
export async function auditRows(deployment: Deployment, after = 0): Promise<AuditRow[]> {
  return (await callAdmin(deployment.relayDir, 'audit.tail', {
    after: { cp: after },
  })) as AuditRow[];
}

/** The position of the newest record. */
export async function auditHead(deployment: Deployment): Promise<number> {
  const rows = (await callAdmin(deployment.relayDir, 'audit.tail', { limit: 1 })) as AuditRow[];
  return rows.at(-1)?.position ?? 0;
}

/**
 * The records after a position that match, once there are `count` of them; what happened elsewhere is recorded a
 * moment later. Then none may be left over: the caller compares the whole.
 */
export async function auditUntil(
  deployment: Deployment,
  after: number,
  count: number,
  matches: (row: AuditRow) => boolean = ({ outcome }) => outcome === 'refused',
): Promise<AuditRow[]> {
  const endAtMs = performance.now() + 30_000;
  for (;;) {
    const rows = (await auditRows(deployment, after)).filter(matches);
    if (rows.length >= count || performance.now() > endAtMs) return rows;
    await delay(50);
  }
}
