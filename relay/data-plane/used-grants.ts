import { ZtnaError, type VerifiedGrant } from '../../protocol/index.ts';
import { limits } from './limits.ts';

/** Which grants were used here. A grant is remembered until it has expired; a full memory refuses every other. */
export class UsedGrants {
  readonly #untilMs = new Map<string, number>(); // oldest use first

  /** Uses the grant up. Throws ERR_GRANT_USED the second time, ERR_RELAY_UNAVAILABLE when the memory is full. */
  use(grant: VerifiedGrant, nowMs: number): void {
    if (this.#untilMs.has(grant.id)) throw new ZtnaError('ERR_GRANT_USED');
    if (this.#untilMs.size >= limits.usedGrants) this.sweep(nowMs);
    if (this.#untilMs.size >= limits.usedGrants) {
      throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'grants_full' });
    }
    this.#untilMs.set(grant.id, grant.expiresAtMs);
  }

  /** Forgets expired grants. Control time may fall a little; the margin keeps a grant from living twice. */
  sweep(nowMs: number): void {
    for (const [id, untilMs] of this.#untilMs) {
      if (nowMs - untilMs < forgetAfterMs) continue;
      this.#untilMs.delete(id);
    }
  }

  get size(): number {
    return this.#untilMs.size;
  }
}

const forgetAfterMs = 60_000;
