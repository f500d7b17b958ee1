/** Keys remembered at once; past it the oldest are forgotten, so strangers cannot fill the memory. */
const maxKeys = 10_000;

interface Bucket {
  tokens: number;
  atMs: number;
}

/** A token bucket per key: so many at once, so many a minute for long. */
export class Throttle {
  readonly #burst: number;
  readonly #perMs: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: { readonly burst: number; readonly perMinute: number }) {
    this.#burst = options.burst;
    this.#perMs = options.perMinute / 60_000;
  }

  /** Takes one token of `key`; answers whether there was one. `nowMs` never falls. */
  take(key: string, nowMs: number): boolean {
    const bucket = this.#buckets.get(key) ?? { tokens: this.#burst, atMs: nowMs };
    const earned = (nowMs - bucket.atMs) * this.#perMs;
    const tokens = Math.min(this.#burst, bucket.tokens + earned);
    const isAllowed = tokens >= 1;
    this.#buckets.delete(key);
    this.#buckets.set(key, { tokens: isAllowed ? tokens - 1 : tokens, atMs: nowMs });
    if (this.#buckets.size > maxKeys) {
      const oldest = this.#buckets.keys().next();
      if (!oldest.done) this.#buckets.delete(oldest.value);
    }
    return isAllowed;
  }
}
