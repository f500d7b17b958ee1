import { limitKeyOf } from '../../data-plane/address.ts';
import { toZtnaError } from '../../../protocol/index.ts';
import { Throttle } from '../listener/throttle.ts';
import type { Logger } from '../../../protocol/host/index.ts';
import type { AuditEntry, AuditLog } from './log.ts';

/** Refusals written down of one address (IPv6: one /64), as many as it may try to enrol, and of all together. */
const perAddress = { burst: 120, perMinute: 60 };
const altogether = { burst: 400, perMinute: 1_200 };

export interface RefusalsOptions {
  readonly audit: Pick<AuditLog, 'append'>;
  readonly clock: { nowMs(): number };
  readonly logger: Logger;
}

/**
 * Writes down what strangers were refused. Each record is a durable write, so there is a bound to them: what goes
 * beyond it is counted, and the next record tells how many are missing.
 */
export class Refusals {
  readonly #options: RefusalsOptions;
  readonly #ofAddress = new Throttle(perAddress);
  readonly #all = new Throttle(altogether);
  #unrecorded = 0;

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** Never throws: the refusal stands, whether or not it can be written down. */
  async record(address: string, entry: Omit<AuditEntry, 'outcome'>): Promise<void> {
    const { audit, clock, logger } = this.#options;
    const nowMs = clock.nowMs();
    if (!this.#ofAddress.take(limitKeyOf(address), nowMs) || !this.#all.take('all', nowMs)) {
      this.#unrecorded += 1;
      return;
    }
    const unrecorded = this.#unrecorded;
    this.#unrecorded = 0;
    const details = { ...entry.details, ...(unrecorded > 0 ? { unrecorded } : {}) };
    try {
      await audit.append({ ...entry, outcome: 'refused', details });
    } catch (failure) {
      this.#unrecorded += unrecorded + 1;
      logger.error('audit_failed', { error: toZtnaError(failure).message });
    }
  }
}
