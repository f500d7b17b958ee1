import { Fifo } from './fifo.ts';

/** What a path may carry before anything is known of it: about what TCP itself begins with (RFC 6928). */
const firstLimitBytes = 16_384;

/** What it may always carry: two packets, so that a path is never idle, however slow. */
const leastLimitBytes = 2_048;

/** Less room than this is none: records would be mostly headers. */
const leastRoomBytes = 1_024;

/** A record is heard of when all of it has come, so at least so many share what may be under way. */
const recordsUnderWay = 4;

/** How long our own bytes may queue on a path at the most, unless its round trip is longer. */
const queueMs = 250;

/** Rates are remembered for one to two spans of this length, or of four delays where that is longer. */
const rateSpanMs = 1_000;

/** With bytes of ours queued all this time the least delay is measured anew. */
const delayStaleMs = 30_000;

interface Sent {
  /** All bytes sent on the path up to here. */
  readonly endBytes: number;
  readonly atMs: number;
  /** All that was known to be heard by then, and since when. */
  readonly heardBytes: number;
  readonly heardAtMs: number;
  /** Only the limit kept more from being sent. */
  readonly isLimited: boolean;
}

/**
 * How many bytes one direction of a path may have under way: what it delivers in its least delay and a quarter of a
 * second more. More would only wait in buffers on the way, where nothing overtakes it: not another stream of the
 * tunnel, nor, on a link whose queue it fills, the control channel. A path that is fast, or whose sender is the slow
 * part, is never held back.
 *
 * The rate is the most that was delivered between a record's departure and the word of its arrival, over the last
 * second or two; the least delay is that of the path's life, measured anew when the queue was never seen empty.
 */
export class Flight {
  readonly #sent = new Fifo<Sent>();
  #sentBytes = 0;
  #heardBytes = 0;
  #heardAtMs = 0;
  #limitBytes = firstLimitBytes;
  #leastDelayMs = Infinity;
  #leastDelayAtMs = 0;
  /** Bytes per millisecond: the most of this span and of the one before. */
  #rate = 0;
  #rateBefore = 0;
  #spanStartMs = 0;
  /** While the delay is measured anew: what was sent behind these bytes had next to no queue ahead of it. */
  #drainedFromBytes: number | undefined;
  #isDraining = false;

  /** Another path begins. */
  reset(): void {
    this.#sent.clear();
    this.#sentBytes = 0;
    this.#heardBytes = 0;
    this.#limitBytes = firstLimitBytes;
    this.#leastDelayMs = Infinity;
    this.#rate = 0;
    this.#rateBefore = 0;
    this.#stopDraining();
  }

  /** Bytes under way. */
  get bytes(): number {
    return this.#sentBytes - this.#heardBytes;
  }

  /** Bytes that the next record may carry: 0, or enough for one that is worth it. */
  get roomBytes(): number {
    const limitBytes = this.#isDraining ? leastLimitBytes : this.#limitBytes;
    const roomBytes = limitBytes - this.bytes;
    if (roomBytes < leastRoomBytes) return 0;
    return Math.min(roomBytes, Math.max(leastRoomBytes, Math.ceil(limitBytes / recordsUnderWay)));
  }

  /** When the oldest bytes under way were sent; undefined while there are none. */
  get oldestAtMs(): number | undefined {
    return this.#sent.peek()?.atMs;
  }

  /** Counts what a record carried. */
  add(bytes: number, nowMs: number): void {
    if (bytes === 0) return;
    if (this.bytes === 0) this.#heardAtMs = nowMs; // nothing was owed until now
    if (this.#isDraining) this.#drainedFromBytes ??= this.#sentBytes;
    this.#sentBytes += bytes;
    this.#sent.push({
      endBytes: this.#sentBytes,
      atMs: nowMs,
      heardBytes: this.#heardBytes,
      heardAtMs: this.#heardAtMs,
      isLimited: this.roomBytes === 0,
    });
  }

  /** The peer has heard so many bytes of this path in all; false when that is more than were sent, or less than before. */
  heard(bytes: number, nowMs: number): boolean {
    if (bytes > this.#sentBytes || bytes < this.#heardBytes) return false;
    this.#heardBytes = bytes;
    this.#heardAtMs = nowMs;
    let last: Sent | undefined;
    for (;;) {
      const sent = this.#sent.peek();
      if (sent === undefined || sent.endBytes > bytes) break;
      last = sent;
      this.#sent.shift();
    }
    if (last) this.#learn(last, nowMs);
    return true;
  }

  /** A small frame was answered after so long. */
  learnRoundTrip(roundTripMs: number, nowMs: number): void {
    if (roundTripMs > this.#leastDelayMs) return;
    this.#leastDelayMs = Math.max(1, roundTripMs);
    this.#leastDelayAtMs = nowMs;
  }

  #learn(sent: Sent, nowMs: number): void {
    const delayMs = Math.max(1, nowMs - sent.atMs);
    this.#learnDelay(sent, delayMs, nowMs);
    const spanMs = Math.max(delayMs, nowMs - sent.heardAtMs);
    const rate = (this.#heardBytes - sent.heardBytes) / spanMs;
    const dueMs = this.#leastDelayMs + Math.max(queueMs, this.#leastDelayMs);
    // What the sender itself kept low says nothing of the path, unless it waited there.
    const isOfPath = sent.isLimited || delayMs > dueMs;
    if (!isOfPath && rate <= this.#rate) return;
    if (nowMs - this.#spanStartMs > Math.max(rateSpanMs, 4 * this.#leastDelayMs)) {
      this.#rateBefore = this.#rate;
      this.#rate = 0;
      this.#spanStartMs = nowMs;
    }
    this.#rate = Math.max(this.#rate, rate);
    const mostRate = Math.max(this.#rate, this.#rateBefore);
    const floorBytes = isOfPath ? leastLimitBytes : this.#limitBytes;
    this.#limitBytes = Math.max(floorBytes, Math.ceil(mostRate * dueMs));
  }

  #learnDelay(sent: Sent, delayMs: number, nowMs: number): void {
    const wasDrained =
      this.#drainedFromBytes !== undefined && sent.endBytes > this.#drainedFromBytes;
    if (wasDrained || delayMs <= this.#leastDelayMs) {
      this.#leastDelayMs = delayMs;
      this.#leastDelayAtMs = nowMs;
      this.#stopDraining();
    } else if (delayMs <= 2 * this.#leastDelayMs || !sent.isLimited) {
      this.#leastDelayAtMs = nowMs; // next to nothing was queued, or nothing of ours
    } else if (nowMs - this.#leastDelayAtMs > delayStaleMs) {
      this.#isDraining = true;
    }
  }

  #stopDraining(): void {
    this.#isDraining = false;
    this.#drainedFromBytes = undefined;
  }
}
