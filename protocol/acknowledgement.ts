/** Follow something new with an ACK within this many bytes … */
const ackWithinBytes = 262_144;

/** … or this long. */
const ackWithinMs = 25;

/** Numbers what one direction of a tunnel sends, and knows how much of it the peer has. */
export class SentNumbers {
  #last = 0;
  #acknowledged = 0;

  get acknowledged(): number {
    return this.#acknowledged;
  }

  get last(): number {
    return this.#last;
  }

  /** The number of the frame that goes into a record now. */
  next(): number {
    return ++this.#last;
  }

  /** Takes an ACK; false when it names what was never sent. */
  acknowledge(number: number): boolean {
    if (number > this.#last) return false;
    this.#acknowledged = Math.max(this.#acknowledged, number);
    return true;
  }
}

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
