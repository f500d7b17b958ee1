import type { TunnelEndpoint } from '../../protocol/index.ts';
import { fullJitterDelayMs } from '../../protocol/host/index.ts';
import { DrainPace } from './drain-pace.ts';
import { PathCongestion } from './path-congestion.ts';
import type { TunnelLease } from './tunnel-lease.ts';

/** A move that failed is tried again after this long, and up to as much more. */
const moveAgainMs = 5_000;

/** When a path that carries bytes is replaced by one with new keys. */
export interface RekeyLimits {
  readonly afterMs: number;
  readonly afterBytes: number;
}

export const defaultRekeyLimits: RekeyLimits = { afterMs: 600_000, afterBytes: 2 ** 34 };

/** What a turnover looks at of the present path. */
export interface PathInUse {
  readonly endpoint: Pick<TunnelEndpoint, 'stuckMs' | 'roundTripMs' | 'isResumable' | 'frameCount'>;
  /** Sealed bytes that the path has carried. */
  readonly pathBytes: number;
}

/**
 * What is to be done about a path that works: to give it up at once with what waits in it, to move to one by another
 * relay, or to move to any other, for new keys.
 */
export type Turnover = 'give_up' | 'leave_relay' | 'rekey';

export interface PathTurnoverOptions {
  /** The relay of the first path has said that it is about to stop. */
  readonly isDraining: boolean;
  readonly rekey?: RekeyLimits | undefined;
  /** Monotonic; compared with what the endpoint measures by `performance.now()`. */
  readonly nowMs?: () => number;
}

/** Decides when one tunnel's path has served its time, though it works: congested, its relay drains, its keys are old. */
export class PathTurnover {
  readonly #rekey: RekeyLimits;
  readonly #nowMs: () => number;
  readonly #drainPace = new DrainPace();
  readonly #congestion = new PathCongestion();
  #isDraining: boolean;
  #sinceMs: number;
  #framesBefore = 0;
  #noMoveBeforeMs = 0;

  /** For a tunnel that begins with its first path now. */
  constructor({ isDraining, rekey, nowMs }: PathTurnoverOptions) {
    this.#isDraining = isDraining;
    this.#rekey = rekey ?? defaultRekeyLimits;
    this.#nowMs = nowMs ?? (() => performance.now());
    this.#sinceMs = this.#nowMs();
  }

  /** Another path has taken over, at so many frames of the tunnel. */
  noteReplaced(frameCount: number, isDraining: boolean): void {
    this.#sinceMs = this.#nowMs();
    this.#framesBefore = frameCount;
    this.#noMoveBeforeMs = 0;
    this.#isDraining = false;
    if (isDraining) this.noteDraining();
  }

  /** The relay of the present path is about to stop. */
  noteDraining(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    const nowMs = this.#nowMs();
    this.#noMoveBeforeMs = nowMs + this.#drainPace.next(nowMs - this.#sinceMs);
  }

  /** No other path came about: for a while the present one is not to be moved from. */
  noteFailed(): void {
    // Not all that failed together try again together.
    const spreadMs = fullJitterDelayMs(0, { baseMs: moveAgainMs, capMs: moveAgainMs });
    this.#noMoveBeforeMs = this.#nowMs() + moveAgainMs + spreadMs;
  }

  /** What is due now, if anything. To be asked a few times a second while the tunnel has a path. */
  due(
    { endpoint, pathBytes }: PathInUse,
    { overdueMs }: Pick<TunnelLease, 'overdueMs'>,
  ): Turnover | undefined {
    const nowMs = this.#nowMs();
    if (this.#congestion.isDue({ endpoint, overdueMs, sinceMs: this.#sinceMs, nowMs })) {
      return 'give_up';
    }
    if (!endpoint.isResumable || nowMs < this.#noMoveBeforeMs) return undefined;
    if (this.#isDraining) return 'leave_relay';
    const { afterMs, afterBytes } = this.#rekey;
    const isOld = nowMs - this.#sinceMs >= afterMs || pathBytes >= afterBytes;
    return isOld && endpoint.frameCount > this.#framesBefore ? 'rekey' : undefined;
  }
}
