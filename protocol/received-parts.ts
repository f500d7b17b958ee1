/**
 * Joins a frame that comes in parts. What of it was passed on stays so when its path is lost in between, and the next
 * path brings it from its beginning again.
 */
export class ReceivedParts {
  #number = 0;
  #stream = 0;
  /** Bytes of that frame that were passed on. */
  #passedBytes = 0;
  /** Bytes of it that came on this path. */
  #pathBytes = 0;

  /** True while a frame has come in part. */
  get isOpen(): boolean {
    return this.#passedBytes > 0;
  }

  /** Takes the next bytes of a frame; answers those that are new, undefined when they cannot belong to it. */
  take(number: number, stream: number, payload: Buffer): Buffer | undefined {
    if (!this.isOpen) {
      this.#number = number;
      this.#stream = stream;
    } else if (this.#number !== number || this.#stream !== stream) {
      return undefined;
    }
    const knownBytes = Math.min(payload.length, this.#passedBytes - this.#pathBytes);
    this.#pathBytes += payload.length;
    this.#passedBytes = Math.max(this.#passedBytes, this.#pathBytes);
    return payload.subarray(knownBytes);
  }

  /** The frame is whole. */
  finish(): void {
    this.#passedBytes = 0;
    this.#pathBytes = 0;
  }

  /** Another path begins. */
  leavePath(): void {
    this.#pathBytes = 0;
  }
}
