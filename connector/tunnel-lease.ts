import { Lease, ZtnaError, type Sequence } from '../protocol/index.ts';
import { maxLeaseMs } from './limits.ts';

/**
 * One tunnel's lease against control time. Where control time is unknown nothing passes. No permission reaches
 * further ahead than `maxLeaseMs` from the moment it was learned.
 */
export class TunnelLease {
  readonly #lease: Lease;
  readonly #nowMs: () => number | undefined;

  /** Throws ERR_RELAY_UNAVAILABLE while control time is unknown, ERR_TUNNEL_LEASE_EXPIRED for one that has ended. */
  constructor(
    first: { readonly sequence: Sequence; readonly untilMs: number },
    nowMs: () => number | undefined,
  ) {
    const now = nowMs();
    if (now === undefined) throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'time_unknown' });
    this.#nowMs = nowMs;
    this.#lease = new Lease({ sequence: first.sequence, untilMs: capped(first.untilMs, now) });
    if (!this.#lease.isLive(now)) {
      throw new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'lease_expired' });
    }
  }

  get untilMs(): number {
    return this.#lease.untilMs;
  }

  /** True while bytes may move. */
  isLive(): boolean {
    const now = this.#nowMs();
    return now !== undefined && this.#lease.isLive(now);
  }

  /** Takes a renewal; answers whether it counted. */
  renew(sequence: Sequence, untilMs: number): boolean {
    const now = this.#nowMs();
    return now !== undefined && this.#lease.renew(sequence, capped(untilMs, now), now);
  }
}

function capped(untilMs: number, nowMs: number): number {
  return Math.min(untilMs, nowMs + maxLeaseMs);
}
