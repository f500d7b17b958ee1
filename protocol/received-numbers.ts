/** Follow something new with a word of it within this many bytes … */
const tellWithinBytes = 262_144;

/** … this many at first where the sender waits for it, doubled each time … */
const tellFirstWithinBytes = 4_096;

/** … or this long. */
const tellWithinMs = 25;

/** Checks the numbers of what arrives, counts its bytes, and says when the peer is to be told. */
export class ReceivedNumbers {
  #last = 0;
  #toldNumber = 0;
  #pathBytes = 0;
  #toldBytes = 0;
  #withinBytes: number;
  #deadlineMs: number | undefined; // set while something new waits to be told
  #isDue = false;
  #isOwed = false;
  readonly #tellsBytes: boolean;

  /** With `tellsBytes` the peer is told of bytes as well as of numbers, and early on each path. */
  constructor(tellsBytes: boolean) {
    this.#tellsBytes = tellsBytes;
    this.#withinBytes = tellsBytes ? tellFirstWithinBytes : tellWithinBytes;
  }

  /** When `tick` must be called at the latest; undefined when nothing waits. */
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
    return this.#last > this.#toldNumber || this.#pathBytes > this.#toldBytes;
  }

  /** Counts a numbered frame; false when it does not follow the one before. */
  receive(number: number, bytes: number, nowMs: number): boolean {
    if (number !== this.#last + 1) return false;
    this.#last = number;
    this.count(bytes, nowMs);
    return true;
  }

  /** Counts bytes, those of a frame that is not whole yet as well. */
  count(bytes: number, nowMs: number): void {
    this.#pathBytes += bytes;
    this.#deadlineMs ??= nowMs + tellWithinMs;
    if (this.#pathBytes - this.#toldBytes >= this.#withinBytes) this.#isDue = true;
  }

  tick(nowMs: number): void {
    if (this.#deadlineMs !== undefined && nowMs >= this.#deadlineMs) this.#isDue = true;
  }

  /** Another path begins. */
  leavePath(): void {
    this.#pathBytes = 0;
    this.#toldBytes = 0;
    if (this.#tellsBytes) this.#withinBytes = tellFirstWithinBytes;
  }

  /** Makes a word of the number due though it may be nothing new. */
  owe(): void {
    this.#isOwed = this.#last > 0;
    this.#isDue ||= this.#isOwed;
  }

  /** What goes out now: the last number, where it may, and all bytes of this path; each only where it is news. */
  tell(mayTellNumber = true): {
    readonly number: number | undefined;
    readonly bytes: number | undefined;
  } {
    const hasNumber = mayTellNumber && (this.#isOwed || this.#last > this.#toldNumber);
    const hasBytes = this.#tellsBytes && this.#pathBytes > this.#toldBytes;
    if (mayTellNumber) {
      this.#isOwed = false;
      this.#toldNumber = this.#last;
    }
    this.#toldBytes = this.#pathBytes;
    this.#withinBytes = Math.min(tellWithinBytes, 2 * this.#withinBytes);
    this.#deadlineMs = undefined;
    this.#isDue = false;
    return {
      number: hasNumber ? this.#last : undefined,
      bytes: hasBytes ? this.#pathBytes : undefined,
    };
  }
}
