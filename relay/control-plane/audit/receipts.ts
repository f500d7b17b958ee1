import { verifyReceipt, verifyingKey } from '../../../protocol/index.ts';
import type { AuditRecord } from './record.ts';

/**
 * Checks the receipts in `tunnel.cut` records, record by record, as they were written: signed under the key in the record,
 * about the tunnel of the record, by its actor, and with a key of that enforcer. A connector's is the one it enrolled with
 * (`connectorKeys`, by id, in base64url); one that is gone with its site has a single key all along. A relay has named its
 * own in an earlier record of the same writer; where the beginning of a chain was pruned, what it named there is not known,
 * and one more key counts as named.
 */
export class ReceiptChecker {
  readonly #connectorKeys: Map<string, string>;
  readonly #namedKeys = new Map<string, Set<string>>();
  readonly #prunedKeys = new Map<string, string>();

  constructor(connectorKeys: ReadonlyMap<string, string>) {
    this.#connectorKeys = new Map(connectorKeys);
  }

  /** False for a record that tells of a cut without proof of it. `isPruned`: the beginning of its chain is gone. */
  accept(record: AuditRecord, isPruned: boolean): boolean {
    if (record.action === 'relay.receipt_key') this.#learn(record);
    if (record.action !== 'tunnel.cut') return true;
    try {
      const { receipt: statement, key } = detailsOf(record);
      if (typeof statement !== 'string' || typeof key !== 'string') return false;
      const receipt = verifyReceipt(statement, verifyingKey(Buffer.from(key, 'base64url')));
      const kind = receipt.by.startsWith('con_') ? 'connector' : 'relay';
      return (
        receipt.tunnel === record.subject &&
        record.actor === `${kind}:${receipt.by}` &&
        (kind === 'connector'
          ? this.#isOfConnector(receipt.by, key)
          : this.#isOfRelay(record, key, isPruned))
      );
    } catch {
      return false;
    }
  }

  #learn(record: AuditRecord): void {
    const { key } = detailsOf(record);
    if (typeof key !== 'string') return;
    const known = this.#namedKeys.get(relayOf(record)) ?? new Set();
    this.#namedKeys.set(relayOf(record), known.add(key));
  }

  #isOfConnector(id: string, key: string): boolean {
    return firstOf(this.#connectorKeys, id, key) === key;
  }

  #isOfRelay(record: AuditRecord, key: string, isPruned: boolean): boolean {
    if (this.#namedKeys.get(relayOf(record))?.has(key)) return true;
    return isPruned && firstOf(this.#prunedKeys, relayOf(record), key) === key;
  }
}

/** The key that is known, or from now on this one. */
function firstOf(keys: Map<string, string>, owner: string, key: string): string {
  const known = keys.get(owner);
  if (known === undefined) keys.set(owner, key);
  return known ?? key;
}

function relayOf({ writer, actor }: AuditRecord): string {
  return JSON.stringify([writer, actor]);
}

function detailsOf({ detailsJson }: AuditRecord): Readonly<Record<string, unknown>> {
  return JSON.parse(detailsJson) as Readonly<Record<string, unknown>>;
}
