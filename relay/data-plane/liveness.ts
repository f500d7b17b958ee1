import { limits } from './limits.ts';

/** What happened on one data WebSocket since the last step. */
export interface Activity {
  /** Anything arrived from the peer. */
  readonly wasHeard: boolean;
  /** Bytes handed to the socket for the peer, ever, and how many of them still wait here. */
  readonly sentBytes: number;
  readonly queuedBytes: number;
  /** Nothing is read from the peer at present, so nothing can be heard. */
  readonly isPaused: boolean;
  /** The peer is looked after closely: it owes a sign of life every few seconds, whether or not something was sent. */
  readonly isActive: boolean;
}

/**
 * Finds a peer that is gone, in monotonic milliseconds. Silence alone is no sign: only while something that was
 * sent is unanswered does the peer owe one, or while it is active, and any progress is life. Idle peers get a ping now
 * and then, for address translators on the way.
 */
export class Liveness {
  #owingSinceMs: number | undefined;
  #hasPinged = false;
  #lastSentMs: number;
  #heardAtMs: number;
  #steppedAtMs: number;
  #sentBefore = 0;
  #queuedBefore = 0;

  constructor(nowMs: number) {
    this.#lastSentMs = nowMs;
    this.#heardAtMs = nowMs;
    this.#steppedAtMs = nowMs;
  }

  /** Called a few times a second. `ping` asks the caller to send one, `dead` to give the peer up. */
  step(nowMs: number, activity: Activity): 'alive' | 'ping' | 'dead' {
    const { wasHeard, sentBytes, queuedBytes, isPaused, isActive } = activity;
    const wasSent = sentBytes > this.#sentBefore;
    // Bytes leave a queue that was full only as the peer takes them.
    const hasDrained =
      this.#queuedBefore > 0 && sentBytes - queuedBytes > this.#sentBefore - this.#queuedBefore;
    this.#sentBefore = sentBytes;
    this.#queuedBefore = queuedBytes;
    // Our own stall is not the peer's silence: what arrived meanwhile has not been read yet.
    const stalledMs = Math.max(0, nowMs - this.#steppedAtMs - 4 * limits.tickMs);
    this.#steppedAtMs = nowMs;
    if (this.#owingSinceMs !== undefined) this.#owingSinceMs += stalledMs;
    this.#heardAtMs += stalledMs;
    if (wasSent || hasDrained) this.#lastSentMs = nowMs;

    const cannotBeHeard = isPaused && queuedBytes === 0;
    if (wasHeard || hasDrained || cannotBeHeard) {
      this.#owingSinceMs = undefined;
      this.#hasPinged = false;
      this.#heardAtMs = nowMs;
    }
    if (!cannotBeHeard && (queuedBytes > 0 || wasSent)) this.#owingSinceMs ??= nowMs;

    if (isActive && nowMs - this.#heardAtMs >= limits.pingAfterMs) {
      this.#owingSinceMs ??= this.#heardAtMs;
    }

    const owingMs = this.#owingSinceMs === undefined ? -1 : nowMs - this.#owingSinceMs;
    if (owingMs >= limits.deadAfterMs) return 'dead';
    const isIdle = nowMs - this.#lastSentMs >= limits.idlePingMs;
    if (this.#hasPinged || !(owingMs >= limits.pingAfterMs || isIdle)) return 'alive';
    this.#hasPinged = !cannotBeHeard;
    this.#lastSentMs = nowMs;
    if (!cannotBeHeard) this.#owingSinceMs ??= nowMs;
    return 'ping';
  }
}
