import type { WebSocket } from 'ws';
import {
  encodeMessage,
  Lease,
  toTunnelEnd,
  ZtnaError,
  type Sequence,
  type VerifiedGrant,
} from '../../protocol/index.ts';
import type { ControlClock, Cut } from '../../protocol/host/index.ts';
import { closeSoon } from './close.ts';
import type { AssignedSlot } from './slots.ts';
import { Splice, type SpliceEnd } from './splice.ts';

/** From this version on tunnels outlive their paths. */
export const movableVersion = 2;

const drainText = encodeMessage(toTunnelEnd, { type: 'drain' });

export interface TunnelOptions {
  readonly grant: VerifiedGrant;
  readonly client: WebSocket;
  /** End of the device's certificate, in control time. */
  readonly certificateUntilMs: number;
  readonly clock: ControlClock;
  /** Both ends have met. */
  readonly onJoin: () => void;
  /** Runs once. */
  readonly onEnd: (end: SpliceEnd) => void;
}

/**
 * One admitted path of a tunnel and its lease. From its first moment it can be renewed, revoked and ended.
 *
 *   waiting ──join(slot)──▶ spliced ──┐
 *      └────────── end(error) ────────┴──▶ ended
 */
export class Tunnel {
  readonly grant: VerifiedGrant;
  readonly #options: TunnelOptions;
  readonly #lease: Lease;
  readonly #gone = new AbortController();
  #splice: Splice | undefined;
  #certificateUntilMs: number;

  constructor(options: TunnelOptions) {
    this.grant = options.grant;
    this.#options = options;
    this.#lease = new Lease(options.grant);
    this.#certificateUntilMs = options.certificateUntilMs;
  }

  /** Aborted, with the error as its reason, when the tunnel ends. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  /** Both ends are there, and bytes may move. */
  get isJoined(): boolean {
    return this.#splice !== undefined;
  }

  get traffic(): Pick<Cut, 'bytesUp' | 'bytesDown' | 'lastByteAt'> {
    const { bytesUp = 0, bytesDown = 0, lastByteAt = null } = this.#splice ?? {};
    return { bytesUp, bytesDown, lastByteAt };
  }

  /** Bytes move from here on. A tunnel that has ended meanwhile closes the slot. */
  join(slot: AssignedSlot): void {
    if (this.signal.aborted) {
      const reason: unknown = this.signal.reason;
      closeSoon(slot.ws, reason instanceof ZtnaError ? reason : new ZtnaError('ERR_TUNNEL_CLOSED'));
      return;
    }
    this.#certificateUntilMs = Math.min(this.#certificateUntilMs, slot.certificateUntilMs);
    const { clock, client, onEnd, onJoin } = this.#options;
    const lease = this.#lease;
    this.#splice = new Splice({
      client,
      connector: slot.ws,
      isLive: () => {
        const nowMs = clock.nowMs();
        return nowMs !== undefined && lease.isLive(nowMs);
      },
      onEnd: (end) => {
        this.#gone.abort(new ZtnaError(end.code, { reason: end.reason }));
        onEnd(end);
      },
    });
    onJoin();
  }

  /** Takes a renewal; answers whether it counted. A lease that was shortened to the past ends the tunnel at once. */
  renew(sequence: Sequence, untilMs: number): boolean {
    const nowMs = this.#options.clock.nowMs();
    if (nowMs === undefined || !this.#lease.renew(sequence, untilMs, nowMs)) return false;
    this.#enforce(nowMs);
    return true;
  }

  /**
   * This relay is about to stop: ends that can move the tunnel are told to. One that has not begun ends here, and its
   * agent asks for another path.
   */
  drain(error: ZtnaError): void {
    if (!this.#splice) this.end(error);
    else if (this.grant.version >= movableVersion) this.#splice.tell(drainText);
  }

  /** Enforcement, a few times a second. */
  tick(monotonicMs: number, controlMs: number | undefined): void {
    this.#enforce(controlMs);
    this.#splice?.tick(monotonicMs);
  }

  #enforce(controlMs: number | undefined): void {
    if (controlMs === undefined || !this.#lease.isLive(controlMs)) {
      this.end(new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'lease_expired' }));
    } else if (controlMs >= this.#certificateUntilMs) {
      this.end(new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'certificate_expired' }));
    }
  }

  /** Ends the tunnel here: both ends are told the code at once. Idempotent. */
  end(error: ZtnaError): void {
    if (this.signal.aborted) return;
    if (this.#splice) {
      this.#splice.end(error);
      return;
    }
    this.#gone.abort(error);
    closeSoon(this.#options.client, error);
    const reason = error.reason ?? error.code.slice('ERR_'.length).toLowerCase();
    this.#options.onEnd({ code: error.code, reason, bytesUp: 0, bytesDown: 0 });
  }
}
