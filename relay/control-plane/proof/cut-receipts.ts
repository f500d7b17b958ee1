import {
  verifyReceipt,
  verifyingKey,
  ZtnaError,
  type CutReceipt,
} from '../../../protocol/index.ts';
import { maxWaitingReceipts } from '../limits.ts';
import type { Services } from '../services.ts';
import type { Revocation, Tx } from '../store/index.ts';
import { Histogram } from './histogram.ts';

interface Received {
  readonly receipt: CutReceipt;
  readonly statement: string;
  readonly key: string;
}

/**
 * What enforcers sign about the tunnels that they cut: put on record together, and measured from the moment at which the
 * decision was durable to the last byte that passed.
 */
export class ReceivedReceipts {
  readonly seconds = new Histogram();
  #waiting: Received[] = [];

  /** Takes a receipt signed by `key`, raw and in base64url. Throws ERR_STATEMENT_REFUSED. */
  take(by: CutReceipt['by'], key: string, statement: string): void {
    const receipt = verifyReceipt(statement, verifyingKey(Buffer.from(key, 'base64url')));
    if (receipt.by !== by) throw new ZtnaError('ERR_STATEMENT_REFUSED', { reason: 'signer_other' });
    if (this.#waiting.length < maxWaitingReceipts) this.#waiting.push({ receipt, statement, key });
  }

  /** Writes down what waits, in one transaction. */
  async keep(services: Services): Promise<void> {
    const due = this.#waiting;
    if (due.length === 0) return;
    this.#waiting = [];
    try {
      await services.store.write(async (tx) => {
        for (const received of due) await this.#record(services, tx, received);
      });
    } catch (error) {
      this.#waiting.unshift(...due);
      throw error;
    }
  }

  async #record(services: Services, tx: Tx, { receipt, statement, key }: Received): Promise<void> {
    const tunnel = await tx
      .selectFrom('tunnels')
      .select(['connectorId', 'userId', 'appId', 'decisionId'])
      .where('id', '=', receipt.tunnel)
      .executeTakeFirst();
    const isConnector = receipt.by.startsWith('con_');
    if (!tunnel || (isConnector && tunnel.connectorId !== receipt.by)) return;
    const entry = await entryOf(tx, receipt);
    const secondsToLastByte = entry && secondsBetween(entry.atMs, receipt.lastByteAtMs);
    await services.audit.append(
      {
        actor: `${isConnector ? 'connector' : 'relay'}:${receipt.by}`,
        action: 'tunnel.cut',
        subject: receipt.tunnel,
        outcome: 'ok',
        ref: tunnel.decisionId,
        details: {
          receipt: statement,
          key,
          reason: receipt.reason,
          what: receipt.action,
          cutAtMs: receipt.cutAtMs,
          lastByteAtMs: receipt.lastByteAtMs,
          decidedAtMs: entry?.atMs ?? null,
        },
      },
      tx,
    );
    if (!entry || secondsToLastByte === undefined) return;
    services.store.afterCommit(tx, () => {
      const by = isConnector ? 'connector' : 'relay';
      this.seconds.observe({ trigger: triggerOf(entry), by }, secondsToLastByte);
    });
  }
}

async function entryOf(
  tx: Tx,
  { incarnation, position }: CutReceipt,
): Promise<Revocation | undefined> {
  if (position === null) return undefined;
  return tx
    .selectFrom('revocations')
    .selectAll()
    .where('incarnation', '=', incarnation)
    .where('position', '=', position)
    .executeTakeFirst();
}

/** None passed after the decision: no time at all. */
function secondsBetween(decidedAtMs: number, lastByteAtMs: number): number {
  return Math.max(0, lastByteAtMs - decidedAtMs) / 1_000;
}

const byReason: Readonly<Record<string, string>> = {
  policy_changed: 'policy',
  policy_denied: 'policy',
  group_removed: 'policy',
  group_changed: 'policy',
  group_member_removed: 'policy',
  user_changed: 'user',
  app_changed: 'app',
  posture_unhealthy: 'posture',
  posture_stale: 'posture',
  risk_high: 'risk',
  device_restricted: 'signal',
  step_up_needed: 'step_up',
  passkey_needed: 'step_up',
  sign_in_needed: 'session',
  signed_in_again: 'session',
};

/** What set a revocation off: one of few words. */
function triggerOf({ subjectKind, reason }: Pick<Revocation, 'subjectKind' | 'reason'>): string {
  if (reason.startsWith('signal_')) return 'signal';
  return byReason[reason] ?? subjectKind;
}
