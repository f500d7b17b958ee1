/** Probe again after this long, while data flows. */
const probeEveryMs = 1_000;

/** Less than this is not worth a probe. */
const probeEveryBytes = 4_096;

/** Learns the path's minimum round trip from probes: one at once, then one a second while data arrives. */
export class RoundTrip {
  #minimumMs: number | undefined;
  #counter = 0n;
  #sentAtMs: number | undefined; // set while a probe is under way
  #lastProbeAtMs = 0;
  #bytesSinceProbe = 0;
  #isDue = false;

  /** The least round trip seen, in milliseconds; undefined until the first reply. */
  get minimumMs(): number | undefined {
    return this.#minimumMs;
  }

  /** When the probe that is under way was sent; undefined while there is none. */
  get waitingSinceMs(): number | undefined {
    return this.#sentAtMs;
  }

  get isProbeDue(): boolean {
    return this.#isDue;
  }

  /** Forgets what was learned: another path begins. */
  reset(): void {
    this.#minimumMs = undefined;
    this.#sentAtMs = undefined;
    this.#isDue = false;
  }

  /** Asks for a probe now. */
  start(): void {
    this.#isDue = true;
  }

  /** Counts data that arrived; true when a probe became due by it. */
  countData(bytes: number, nowMs: number): boolean {
    this.#bytesSinceProbe += bytes;
    if (this.#isDue || this.#sentAtMs !== undefined) return false;
    if (this.#bytesSinceProbe < probeEveryBytes) return false;
    if (nowMs - this.#lastProbeAtMs < probeEveryMs) return false;
    this.#isDue = true;
    return true;
  }

  /** The payload of the probe that goes out now, if one is due. */
  takeProbe(nowMs: number): Buffer | undefined {
    if (!this.#isDue) return undefined;
    this.#isDue = false;
    this.#sentAtMs = nowMs;
    this.#lastProbeAtMs = nowMs;
    this.#bytesSinceProbe = 0;
    const payload = Buffer.allocUnsafe(8);
    payload.writeBigUInt64BE(++this.#counter);
    return payload;
  }

  /** Takes a reply; answers how long it took, undefined when it answers no probe of ours. */
  reply(payload: Buffer, nowMs: number): number | undefined {
    if (this.#sentAtMs === undefined || payload.readBigUInt64BE(0) !== this.#counter) {
      return undefined;
    }
    const elapsedMs = Math.max(0, nowMs - this.#sentAtMs);
    this.#minimumMs = Math.min(this.#minimumMs ?? elapsedMs, elapsedMs);
    this.#sentAtMs = undefined;
    return elapsedMs;
  }
}
