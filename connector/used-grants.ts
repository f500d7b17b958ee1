import { ZtnaError, type GrantId, type TunnelId } from '../protocol/index.ts';
import { maxUsedGrants } from './limits.ts';

/**
 * Remembers what was used until it could not be used anyway: a grant serves once, and so does each path number
 * of a tunnel.
 */
export class UsedGrants {
  /** Grant ids and tunnel generations → the control time after which they may be forgotten. */
  readonly #forgetAtMs = new Map<string, number>();
  readonly #max: number;

  constructor(max: number = maxUsedGrants) {
    this.#max = max;
  }

  get size(): number {
    return this.#forgetAtMs.size;
  }

  /**
   * Records the use. Throws ERR_GRANT_USED for a second one, and ERR_LIMIT_TUNNELS when nothing more can be
   * remembered: then nothing more is accepted either.
   */
  use(
    grant: {
      readonly id: GrantId;
      readonly tunnel: TunnelId;
      readonly generation: number;
      readonly expiresAtMs: number;
    },
    nowMs: number,
  ): void {
    const path = `${grant.tunnel}/${grant.generation}`;
    if (this.#forgetAtMs.has(grant.id) || this.#forgetAtMs.has(path)) {
      throw new ZtnaError('ERR_GRANT_USED', { reason: 'grant_used' });
    }
    if (this.#forgetAtMs.size + 2 > this.#max) this.forget(nowMs);
    if (this.#forgetAtMs.size + 2 > this.#max) {
      throw new ZtnaError('ERR_LIMIT_TUNNELS', { reason: 'used_grants_full' });
    }
    // Control time may be set back by as much as one exchange errs, and a grant seconds ahead of it is valid.
    const forgetAtMs = grant.expiresAtMs + clockMarginMs;
    this.#forgetAtMs.set(grant.id, forgetAtMs);
    this.#forgetAtMs.set(path, forgetAtMs);
  }

  /** Drops what has expired. */
  forget(nowMs: number): void {
    for (const [key, atMs] of this.#forgetAtMs) {
      if (nowMs >= atMs) this.#forgetAtMs.delete(key);
    }
  }
}

const clockMarginMs = 10_000;
