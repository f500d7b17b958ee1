/** What every stream may always send ahead, and what each window starts with. */
export const reservedWindowBytes = 65_536;

/** Bytes that several takers share, such as the room for window growth of a whole process. */
export class ByteBudget {
  #freeBytes: number;

  constructor(totalBytes: number) {
    this.#freeBytes = totalBytes;
  }

  get freeBytes(): number {
    return this.#freeBytes;
  }

  /** Takes up to `bytes`; answers how many it got. */
  take(bytes: number): number {
    const taken = Math.max(0, Math.min(bytes, this.#freeBytes));
    this.#freeBytes -= taken;
    return taken;
  }

  give(bytes: number): void {
    this.#freeBytes += bytes;
  }
}

/** A tunnel's room for window growth: its own cap, within the budget of the process. */
export class WindowGrowth {
  readonly #capBytes: number;
  readonly #process: ByteBudget | undefined;
  #usedBytes = 0;
  #holders = 0;
  #isShort = false;

  constructor(capBytes: number, processBudget: ByteBudget | undefined) {
    this.#capBytes = capBytes;
    this.#process = processBudget;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** What a window may keep of its growth: everything, unless a window of less growth had to go without. */
  get shareBytes(): number {
    return this.#isShort ? Math.floor(this.#capBytes / (this.#holders + 1)) : this.#capBytes;
  }

  /** Takes up to `bytes` for a window that holds `heldBytes`; answers how many it got. */
  take(bytes: number, heldBytes: number): number {
    const equalBytes = this.#capBytes / (this.#holders + 1);
    const allowedBytes = this.#isShort ? Math.max(0, Math.floor(equalBytes) - heldBytes) : bytes;
    const wantedBytes = Math.min(bytes, allowedBytes, this.#capBytes - this.#usedBytes);
    const taken = this.#process === undefined ? wantedBytes : this.#process.take(wantedBytes);
    if (heldBytes + bytes <= equalBytes) this.#isShort = taken < bytes;
    if (heldBytes === 0 && taken > 0) this.#holders++;
    this.#usedBytes += taken;
    return taken;
  }

  /** Returns bytes of a window that held `heldBytes` before. */
  give(bytes: number, heldBytes: number): void {
    if (bytes === 0) return;
    this.#usedBytes -= bytes;
    this.#process?.give(bytes);
    if (bytes === heldBytes) this.#holders--;
  }
}

/** Windows grow on paths of less delay as if they had this much, so that the machines' own delays do not cap them. */
const leastDelayMs = 5;

/**
 * How far a stream's peer may send: `limitBytes`, absolute. The window doubles whenever more than half of it was
 * consumed within twice the path's minimum delay, so it settles at four to eight times bandwidth × minimum delay.
 */
export class ReceiveWindow {
  readonly #growth: WindowGrowth;
  #grownBytes = 0;
  #receivedBytes = 0;
  #consumedBytes = 0;
  #limitBytes = reservedWindowBytes;
  #epochStartMs: number | undefined;
  #epochConsumedBytes = 0;

  constructor(growth: WindowGrowth) {
    this.#growth = growth;
  }

  get windowBytes(): number {
    return reservedWindowBytes + this.#grownBytes;
  }

  get limitBytes(): number {
    return this.#limitBytes;
  }

  get consumedBytes(): number {
    return this.#consumedBytes;
  }

  get unconsumedBytes(): number {
    return this.#receivedBytes - this.#consumedBytes;
  }

  /** Counts bytes that arrived; false when they exceed the limit. */
  receive(bytes: number, nowMs: number): boolean {
    this.#epochStartMs ??= nowMs;
    this.#receivedBytes += bytes;
    return this.#receivedBytes <= this.#limitBytes;
  }

  /** Counts bytes that were passed on; false when there were not so many. */
  consume(bytes: number): boolean {
    this.#consumedBytes += bytes;
    return bytes >= 0 && this.#consumedBytes <= this.#receivedBytes;
  }

  /** True when a quarter of the window can be told to the peer as new credit. */
  get isCreditDue(): boolean {
    const raiseBytes = this.#consumedBytes + this.windowBytes - this.#limitBytes;
    return raiseBytes * 4 >= this.windowBytes;
  }

  /** Grows or shrinks the window as due, and raises the limit. `delayMs` is the minimum round trip, if known. */
  nextLimit(nowMs: number, delayMs: number | undefined): number {
    this.#resize(nowMs, delayMs);
    this.#limitBytes = Math.max(this.#limitBytes, this.#consumedBytes + this.windowBytes);
    return this.#limitBytes;
  }

  /** Returns the growth when nothing more will arrive or be read. */
  release(): void {
    this.#growth.give(this.#grownBytes, this.#grownBytes);
    this.#grownBytes = 0;
  }

  #resize(nowMs: number, delayMs: number | undefined): void {
    const epochBytes = this.#consumedBytes - this.#epochConsumedBytes;
    if (epochBytes * 2 > this.windowBytes) {
      const elapsedMs = nowMs - (this.#epochStartMs ?? nowMs);
      if (delayMs !== undefined && elapsedMs < 2 * Math.max(delayMs, leastDelayMs)) {
        this.#grownBytes += this.#growth.take(this.windowBytes, this.#grownBytes);
      }
      this.#epochStartMs = nowMs;
      this.#epochConsumedBytes = this.#consumedBytes;
    }
    const excessBytes = this.#grownBytes - this.#growth.shareBytes;
    if (excessBytes > 0) this.#shrink(excessBytes);
  }

  /** Gives growth back as far as the limit, which never falls, leaves it unused. */
  #shrink(excessBytes: number): void {
    const promisedBytes = this.#limitBytes - this.#consumedBytes;
    const spareBytes = Math.min(excessBytes, Math.max(0, this.windowBytes - promisedBytes));
    this.#growth.give(spareBytes, this.#grownBytes);
    this.#grownBytes -= spareBytes;
  }
}
