const slabBytes = 16_384;

/**
 * Collects small chunks that must wait, by copying them together. Each by itself would keep alive the whole record
 * that it is a view of, and thousands of one-byte chunks would cost many times their bytes.
 */
export class ChunkGatherer {
  #slab: Buffer | undefined;
  #lengthBytes = 0;

  /** Copies the chunk; false when it is not small or does not fit any more. */
  add(chunk: Buffer): boolean {
    const isWhole = chunk.length * 2 >= chunk.buffer.byteLength;
    if (isWhole && chunk.length * 8 >= slabBytes) return false;
    if (chunk.length > slabBytes - this.#lengthBytes) return false;
    this.#slab ??= Buffer.allocUnsafeSlow(slabBytes);
    this.#slab.set(chunk, this.#lengthBytes);
    this.#lengthBytes += chunk.length;
    return true;
  }

  /** What was collected; undefined when there is nothing. */
  take(): Buffer | undefined {
    const chunk = this.#slab?.subarray(0, this.#lengthBytes);
    this.#slab = undefined;
    this.#lengthBytes = 0;
    return chunk;
  }
}
