import type { RecordWriter } from './record-writer.ts';

/** Chunks waiting to be sent, in order, held without copying. */
export class ByteQueue {
  #chunks: Buffer[] = [];
  #head = 0;
  #headOffset = 0;
  #lengthBytes = 0;

  get lengthBytes(): number {
    return this.#lengthBytes;
  }

  get chunkCount(): number {
    return this.#chunks.length - this.#head;
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
      const chunk = this.#chunks[this.#head];
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
      this.#head++;
    }
    this.#compact();
  }

  /** Keeps no more than the first `bytes` bytes. */
  truncate(bytes: number): void {
    let end = this.#head;
    let kept = -this.#headOffset;
    for (let chunk = this.#chunks[end]; kept < bytes; chunk = this.#chunks[end]) {
      if (chunk === undefined) return;
      if (kept + chunk.length > bytes) this.#chunks[end] = chunk.subarray(0, bytes - kept);
      kept += chunk.length;
      end++;
    }
    this.#chunks.length = end;
    this.#lengthBytes = bytes;
    this.#compact();
  }

  #compact(): void {
    if (this.#head === this.#chunks.length) {
      this.#chunks.length = 0;
      this.#head = 0;
      this.#headOffset = 0;
    } else if (this.#head >= 64 && this.#head * 2 >= this.#chunks.length) {
      this.#chunks.splice(0, this.#head);
      this.#head = 0;
    }
  }
}
