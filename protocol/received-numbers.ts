/** Follow something new with an ACK within this many bytes … */
const ackWithinBytes = 262_144;

/** … or this long. */
const ackWithinMs = 25;

/** Checks the numbers of what arrives, and says when an ACK is due. */
export class ReceivedNumbers {
  #last = 0;
  #told = 0;
  #newBytes = 0;
  #deadlineMs: number | undefined; // set while something new waits to be acknowledged
  #isDue = false;

  /** When `tick` must be called at the latest. */
  get deadlineMs(): number | undefined {
    return this.#isDue ? undefined : this.#deadlineMs;
  }

  get isDue(): boolean {
    return this.#isDue;
  }

  /** The highest number received in order. */
  get last(): number {
    return this.#last;
  }

  get hasNew(): boolean {
    return this.#last > this.#told;
  }

  /** Counts a numbered frame; false when it does not follow the one before. */
  receive(number: number, bytes: number, nowMs: number): boolean {
    if (number !== this.#last + 1) return false;
    this.#last = number;
    this.#newBytes += bytes;
    this.#deadlineMs ??= nowMs + ackWithinMs;
    if (this.#newBytes >= ackWithinBytes) this.#isDue = true;
    return true;
  }

  tick(nowMs: number): void {
    if (this.#deadlineMs !== undefined && nowMs >= this.#deadlineMs) this.#isDue = true;
  }

  /** Makes an ACK due though it may tell nothing new. */
  owe(): void {
    this.#isDue = this.#last > 0;
  }

  /** The number of the ACK that goes out now. */
  tell(): number {
    this.#told = this.#last;
    this.#newBytes = 0;
    this.#deadlineMs = undefined;
    this.#isDue = false;
    return this.#told;
  }
}
