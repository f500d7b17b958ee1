import type { TunnelEndpoint } from '../../protocol/index.ts';

/** A path on which something of ours has been under way for so long, and four round trips, is congested … */
const stuckAfterMs = 2_500;
const stuckAfterRoundTrips = 4;

/** … if it brought something so lately: one that brings nothing may be dead, which others judge. */
const hearingWithinMs = 1_500;

/** … and crowds the control channel out, whose renewals come this late. */
const overdueAfterMs = 1_000;

/** A new path is left alone: what its ends send at once is little. */
const youngForMs = 8_000;

/** The next cut is not before this long, doubled each time. */
const firstPauseMs = 20_000;
const longestPauseMs = 320_000;

/** What is to be known of a path, in milliseconds of one clock. */
export interface PathSigns {
  readonly endpoint: Pick<TunnelEndpoint, 'stuckMs' | 'roundTripMs'>;
  /** How long the next renewal of the lease is overdue. */
  readonly overdueMs: number;
  /** When the path began. */
  readonly sinceMs: number;
  readonly nowMs: number;
}

/**
 * Finds a path whose queue has become too long, as when a network turns slow with megabytes in its buffers. They would
 * go ahead of everything for minutes, and crowd out the control channel beside them, which is how they are told from a way
 * that only became long. A new path leaves them behind: its ends send again what was lost with the old one, no faster
 * than it is delivered.
 */
export class PathCongestion {
  #pauseMs = firstPauseMs;
  #notBeforeMs = 0;

  /** True, rarely, when the path is better given up. To be asked a few times a second with the time of `performance.now()`. */
  isDue({ endpoint, overdueMs, sinceMs, nowMs }: PathSigns): boolean {
    if (nowMs < Math.max(this.#notBeforeMs, sinceMs + youngForMs)) return false;
    if (overdueMs < overdueAfterMs) return false;
    const stuckMs = endpoint.stuckMs(nowMs, hearingWithinMs);
    const mostMs = stuckAfterMs + stuckAfterRoundTrips * (endpoint.roundTripMs ?? 0);
    if (stuckMs < mostMs) return false;
    this.#notBeforeMs = nowMs + this.#pauseMs;
    this.#pauseMs = Math.min(longestPauseMs, 2 * this.#pauseMs);
    return true;
  }
}
