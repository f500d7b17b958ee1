import {
  compareSequence,
  Lease,
  ZtnaError,
  type Sequence,
  type VerifiedGrant,
} from '../../protocol/index.ts';
import type { ControlClock } from '../../protocol/host/index.ts';

/** A renewal comes within an interval and a quarter. */
const longestInterval = 1.25;

/** The lease under which one tunnel moves bytes, by control time: while that is not known, none may move. */
export class TunnelLease {
  readonly #lease: Lease;
  readonly #clock: Pick<ControlClock, 'nowMs'>;
  readonly #intervalMs: number;
  #heardAtMs = performance.now();

  /** As the grant says. */
  constructor(grant: VerifiedGrant<'client'>, clock: Pick<ControlClock, 'nowMs'>) {
    this.#lease = new Lease(grant);
    this.#intervalMs = grant.intervalMs;
    this.#clock = clock;
  }

  /** Control time at which it is over, unless it is renewed before. */
  get untilMs(): number {
    return this.#lease.untilMs;
  }

  get isLive(): boolean {
    const nowMs = this.#clock.nowMs();
    return nowMs !== undefined && this.#lease.isLive(nowMs);
  }

  /** Takes a renewal. False for one that does not count, which changes nothing. */
  renew(sequence: Sequence, untilMs: number): boolean {
    const nowMs = this.#clock.nowMs();
    const counts = nowMs !== undefined && this.#lease.renew(sequence, untilMs, nowMs);
    if (counts) this.#heardAtMs = performance.now();
    return counts;
  }

  /** How long the next renewal is overdue, in milliseconds; 0 where it is not. */
  get overdueMs(): number {
    const sinceMs = performance.now() - this.#heardAtMs;
    return Math.max(0, sinceMs - longestInterval * this.#intervalMs);
  }

  /**
   * The lease on a later path of the tunnel: a renewal that has overtaken that path's grant is the newer decision and goes
   * on counting. Throws ERR_TUNNEL_RESUME_REFUSED for a grant that is overtaken by a lease which is over.
   */
  following(grant: VerifiedGrant<'client'>): TunnelLease {
    const isNewer = compareSequence(grant.sequence, this.#lease.sequence) > 0;
    if (isNewer) return new TunnelLease(grant, this.#clock);
    if (this.isLive) return this;
    throw new ZtnaError('ERR_TUNNEL_RESUME_REFUSED', { reason: 'sequence_old' });
  }
}
