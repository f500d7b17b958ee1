import { Fifo } from './fifo.ts';
import type { RecordWriter } from './record-writer.ts';

/** Chunks waiting to be sent, in order, held without copying. */
export class ByteQueue {
  readonly #chunks = new Fifo<Buffer>();
  /** How much of the first chunk has left. */
  #headOffset = 0;
  #lengthBytes = 0;

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  get chunkCount(): number {
    return this.#chunks.length;
  }

  push(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#lengthBytes += chunk.length;
  }

  /** Moves the first `bytes` bytes, which must be there, into the record. */
  moveTo(record: RecordWriter, bytes: number): void {
    this.#lengthBytes -= bytes;
    let missing = bytes;
    while (missing > 0) {
      const chunk = this.#chunks.peek();
      if (chunk === undefined) throw new RangeError('more bytes than the queue holds');
      const end = this.#headOffset + missing;
      if (end < chunk.length) {
        record.addPayload(chunk.subarray(this.#headOffset, end));
        this.#headOffset = end;
        return;
      }
      record.addPayload(this.#headOffset === 0 ? chunk : chunk.subarray(this.#headOffset));
      missing -= chunk.length - this.#headOffset;
      this.#headOffset = 0;
      this.#chunks.shift();
    }
  }

  /** Keeps no more than the first `bytes` bytes. */
  truncate(bytes: number): void {
    while (this.#lengthBytes > bytes) {
      const last = this.#chunks.pop();
      if (last === undefined) return;
      const ownBytes = last.length - (this.#chunks.length === 0 ? this.#headOffset : 0);
      const restBytes = this.#lengthBytes - ownBytes;
      this.#lengthBytes = Math.max(bytes, restBytes);
      if (restBytes < bytes)
        this.#chunks.push(last.subarray(0, last.length - (restBytes + ownBytes - bytes)));
    }
    if (this.#chunks.length === 0) this.#headOffset = 0;
  }
}
