import { TokenBucket } from '../../protocol/index.ts';

/**
 * One bucket per key, at most `maxKeys` of them. When all are in use and none is full, a new key is refused:
 * forgetting a half-empty one would hand its owner a fresh burst.
 */
export class TokenBuckets {
  readonly #buckets = new Map<string, TokenBucket>();
  readonly #burst: number;
  readonly #perSecond: number;
  readonly #maxKeys: number;
  #sweptAtMs = -Infinity;

  constructor(burst: number, perSecond: number, maxKeys: number) {
    this.#burst = burst;
    this.#perSecond = perSecond;
    this.#maxKeys = maxKeys;
  }

  take(key: string, nowMs: number): boolean {
    let bucket = this.#buckets.get(key);
    if (!bucket) {
      // At most once a second: looking through all of them for each stranger would be an attack's lever.
      if (this.#buckets.size >= this.#maxKeys && nowMs - this.#sweptAtMs >= 1_000)
        this.sweep(nowMs);
      if (this.#buckets.size >= this.#maxKeys) return false;
      bucket = new TokenBucket(this.#burst, this.#perSecond);
      this.#buckets.set(key, bucket);
    }
    return bucket.take(nowMs);
  }

  giveBack(key: string): void {
    this.#buckets.get(key)?.giveBack();
  }

  /** Forgets the keys whose buckets are full again. */
  sweep(nowMs: number): void {
    this.#sweptAtMs = nowMs;
    for (const [key, bucket] of this.#buckets) {
      if (bucket.isFull(nowMs)) this.#buckets.delete(key);
    }
  }

  get size(): number {
    return this.#buckets.size;
  }
}
