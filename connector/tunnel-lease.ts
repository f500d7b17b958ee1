import { compareSequence, Lease, ZtnaError, type Sequence } from '../protocol/index.ts';
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

  /**
   * The lease with which a tunnel goes on under another grant: that of the newer decision, which is the grant's unless a
   * renewal has overtaken it. Throws ERR_TUNNEL_RESUME_REFUSED for an older one when the present lease is over; else as
   * the constructor.
   */
  static following(
    present: TunnelLease,
    grant: { readonly sequence: Sequence; readonly untilMs: number },
  ): TunnelLease {
    if (compareSequence(grant.sequence, present.#lease.sequence) > 0) {
      return new TunnelLease(grant, present.#nowMs);
    }
    if (present.isLive()) return present;
    throw new ZtnaError('ERR_TUNNEL_RESUME_REFUSED', { reason: 'sequence_old' });
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
