import type { WebSocket } from 'ws';
import { countGarbage } from '../../protocol/host/index.ts';
import { errorRow, fromCloseFrame, ZtnaError, type ErrorCode } from '../../protocol/index.ts';
import { limits } from './limits.ts';
import { closeBehind, closeSoon } from './close.ts';
import { Liveness } from './liveness.ts';

export type Side = 'client' | 'connector';

/** Why and after how many bytes a splice ended. */
export interface SpliceEnd {
  readonly code: ErrorCode;
  readonly reason: string;
  readonly bytesUp: number; // client → connector
  readonly bytesDown: number;
}

export interface SpliceOptions {
  readonly client: WebSocket;
  readonly connector: WebSocket;
  /** Asked before every message: may bytes move now? */
  readonly isLive: () => boolean;
  readonly onEnd: (end: SpliceEnd) => void;
}

const textOptions = { binary: false, compress: false, mask: false, fin: true } as const;
const sendOptions = { binary: true, compress: false, mask: false, fin: true } as const;

/**
 * Joins two data WebSockets. Binary messages pass untouched, in order, at the pace of the slower end; text has no
 * meaning here and ends the path.
 *
 *   spliced ──end(error) | either end closes | lease over | text──▶ ended (both told, once)
 */
export class Splice {
  readonly #options: SpliceOptions;
  readonly #up: Direction;
  readonly #down: Direction;
  readonly #clientLife = new Liveness(performance.now());
  readonly #connectorLife = new Liveness(performance.now());
  #hasEnded = false;
  #movedBytes = 0;
  #lastByteAt: number | null = null;
  #movedAtMs = performance.now();

  /** Both sockets must be open and paused; reading begins here. */
  constructor(options: SpliceOptions) {
    this.#options = options;
    const { client, connector } = options;
    this.#up = new Direction(client, connector);
    this.#down = new Direction(connector, client);
    this.#listen('client', this.#up);
    this.#listen('connector', this.#down);
    client.resume();
    connector.resume();
  }

  /** When a message passed last, as `performance.now()` tells it; null before the first. */
  get lastByteAt(): number | null {
    return this.#lastByteAt;
  }

  get bytesUp(): number {
    return this.#up.bytes;
  }

  get bytesDown(): number {
    return this.#down.bytes;
  }

  #listen(side: Side, direction: Direction): void {
    const { source } = direction;
    source.on('message', (data: Buffer, isBinary: boolean) => {
      if (this.#hasEnded) return;
      if (!isBinary) {
        this.end(new ZtnaError('ERR_MESSAGE_UNEXPECTED', { reason: `text_from_${side}` }));
      } else if (!this.#options.isLive()) {
        this.end(leaseOver());
      } else {
        this.#lastByteAt = performance.now();
        direction.pass(data);
        countGarbage(2 * data.length); // as TLS gave it, and as a message
      }
    });
    source.on('pong', () => {
      direction.wasHeard = true;
    });
    source.on('ping', () => {
      direction.wasHeard = true;
    });
    source.on('close', (code: number, text: Buffer) => {
      this.#endedBy(side, closedBy(side, code, text.toString('utf8')));
    });
    if (source.readyState !== source.OPEN) {
      queueMicrotask(() => {
        this.#endedBy(side, closedBy(side, 1006, ''));
      });
    }
  }

  /** Sends both ends a text message behind what is queued for them; nothing once the path has ended. */
  tell(text: string): void {
    if (this.#hasEnded) return;
    for (const { source } of [this.#up, this.#down]) {
      if (source.readyState === source.OPEN) source.send(text, textOptions);
    }
  }

  /**
   * Ends the path for both at once: no message passes after this call, each end is told the code behind whatever
   * was queued for it, and cut when that takes longer than a moment.
   */
  end(error: ZtnaError): void {
    if (this.#hasEnded) return;
    for (const { source } of [this.#up, this.#down]) closeSoon(source, error);
    this.#finish(error);
  }

  /** One end left. What it had sent still reaches the other, unless it left because access was over. */
  #endedBy(side: Side, error: ZtnaError): void {
    if (this.#hasEnded) return;
    const { family } = errorRow(error.code);
    const isOver = family === 'denied' || family === 'expired';
    const { target } = side === 'client' ? this.#up : this.#down;
    (isOver ? closeSoon : closeBehind)(target, error);
    this.#finish(error);
  }

  #finish(error: ZtnaError): void {
    this.#hasEnded = true;
    this.#options.onEnd({
      code: error.code,
      reason: error.reason ?? error.code.slice('ERR_'.length).toLowerCase(),
      bytesUp: this.bytesUp,
      bytesDown: this.bytesDown,
    });
  }

  /** Called a few times a second with monotonic time: finds ends that no longer answer. */
  tick(nowMs: number): void {
    const movedBytes = this.bytesUp + this.bytesDown;
    if (movedBytes > this.#movedBytes) this.#movedAtMs = nowMs;
    this.#movedBytes = movedBytes;
    if (!this.#hasEnded) this.#check('client', this.#up, this.#down, this.#clientLife, nowMs);
    if (!this.#hasEnded) this.#check('connector', this.#down, this.#up, this.#connectorLife, nowMs);
  }

  #check(side: Side, from: Direction, to: Direction, life: Liveness, nowMs: number): void {
    const { source: end, wasHeard } = from;
    from.wasHeard = false;
    const verdict = life.step(nowMs, {
      wasHeard,
      sentBytes: to.bytes,
      queuedBytes: end.bufferedAmount,
      isPaused: end.isPaused,
      // An end that fell silent in the middle of something is found, whichever way the bytes went.
      isActive: nowMs - this.#movedAtMs < limits.activeMs,
    });
    if (verdict === 'ping' && end.readyState === end.OPEN) end.ping();
    if (verdict === 'dead') {
      this.end(new ZtnaError('ERR_TUNNEL_PATH_LOST', { reason: `${side}_silent` }));
    }
  }
}

/** One direction: messages from `source` to `target`. */
class Direction {
  readonly source: WebSocket;
  readonly target: WebSocket;
  bytes = 0;
  /** Anything came from `source` since the last tick. */
  wasHeard = false;

  constructor(source: WebSocket, target: WebSocket) {
    this.source = source;
    this.target = target;
  }

  pass(data: Buffer): void {
    const { source, target } = this;
    this.bytes += data.length;
    this.wasHeard = true;
    // Only sends beyond the low-water mark pay for a callback; the first that completes below it resumes reading.
    if (target.bufferedAmount < limits.lowWaterBytes) {
      target.send(data, sendOptions);
      return;
    }
    target.send(data, sendOptions, this.#wasWritten);
    if (target.bufferedAmount >= limits.highWaterBytes && !source.isPaused) source.pause();
  }

  readonly #wasWritten = (): void => {
    if (this.source.isPaused && this.target.bufferedAmount < limits.lowWaterBytes) {
      this.source.resume();
    }
  };
}

function leaseOver(): ZtnaError {
  return new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'lease_expired' });
}

function closedBy(side: Side, code: number, text: string): ZtnaError {
  if (code === 1000 || code === 1001 || code === 1005) {
    return new ZtnaError('ERR_TUNNEL_CLOSED', { reason: `${side}_closed` });
  }
  const error = fromCloseFrame(code, text);
  const what = error.code === 'ERR_TUNNEL_PATH_LOST' ? 'lost' : 'closed';
  return new ZtnaError(error.code, { reason: `${side}_${what}` });
}
