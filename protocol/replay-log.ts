import { Fifo } from './fifo.ts';
import { frameHeaderBytes, type FrameType } from './frame.ts';
import { reservedWindowBytes, type ByteBudget } from './window.ts';

/** A numbered frame that was sent; its payload is referred to, not copied. */
export interface KeptFrame {
  readonly type: FrameType;
  readonly stream: number;
  readonly number: number;
  readonly payload: readonly Buffer[];
  readonly payloadBytes: number;
}

/** Growth is taken in pieces of this size. */
const growthStepBytes = 262_144;

/**
 * What one end has sent and its peer has not acknowledged: sent again, under the same numbers, on the next path.
 * Frames are numbered without a gap, so a place in the log follows from a number.
 */
export class ReplayLog {
  readonly #frames = new Fifo<KeptFrame>();
  #bytes = 0;
  #grownBytes = 0;
  readonly #capBytes: number;
  readonly #process: ByteBudget | undefined;

  /** Above `reservedWindowBytes` for each stream it grows by `capBytes` at most, out of what the process has left. */
  constructor(capBytes: number, processBudget: ByteBudget | undefined) {
    this.#capBytes = capBytes;
    this.#process = processBudget;
  }

  /** Bytes kept, headers included. */
  get bytes(): number {
    return this.#bytes;
  }

  push(frame: KeptFrame): void {
    this.#frames.push(frame);
    this.#bytes += frame.payloadBytes + frameHeaderBytes;
  }

  /** The frame of that number; undefined when it was acknowledged or never sent. */
  get(number: number): KeptFrame | undefined {
    const first = this.#frames.peek();
    return first && number >= first.number ? this.#frames.at(number - first.number) : undefined;
  }

  /** Drops everything up to that number. */
  acknowledge(number: number): void {
    for (;;) {
      const frame = this.#frames.peek();
      if (frame === undefined || frame.number > number) break;
      this.#bytes -= frame.payloadBytes + frameHeaderBytes;
      this.#frames.shift();
    }
    this.#shrink();
  }

  /** True while no more data may be sent: what is kept for `streams` open streams has reached its bound. */
  isFull(streams: number): boolean {
    const reservedBytes = reservedWindowBytes * Math.max(1, streams);
    while (this.#bytes >= reservedBytes + this.#grownBytes) {
      const wantedBytes = Math.min(growthStepBytes, this.#capBytes - this.#grownBytes);
      const taken = this.#process?.take(wantedBytes) ?? wantedBytes;
      if (taken <= 0) return true;
      this.#grownBytes += taken;
    }
    return false;
  }

  clear(): void {
    this.#frames.clear();
    this.#bytes = 0;
    this.#shrink();
  }

  /** Gives back what is not needed for what is kept now. */
  #shrink(): void {
    const neededBytes = Math.ceil(this.#bytes / growthStepBytes) * growthStepBytes;
    const spareBytes = this.#grownBytes - neededBytes;
    if (spareBytes <= 0) return;
    this.#process?.give(spareBytes);
    this.#grownBytes -= spareBytes;
  }
}
