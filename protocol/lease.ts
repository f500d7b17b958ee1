import * as v from 'valibot';
import { idSchema } from './id.ts';
import { natural } from './schema.ts';

/**
 * The order of renewals: [fencing number, counter]. One control plane owns a tunnel under a fencing number
 * that only a later owner can exceed, so a stale owner or a late evaluation never outbids a newer decision.
 */
export const sequenceSchema = v.tuple([natural, natural]);
export type Sequence = v.InferOutput<typeof sequenceSchema>;

/** Negative when a comes before b, zero when equal, positive when after. */
export function compareSequence(a: Sequence, b: Sequence): number {
  return a[0] - b[0] || a[1] - b[1];
}

/** A batch of renewals for tunnels of one connector: kind `lease`, at most 256 entries. */
export const leaseBatchSchema = v.strictObject({
  connector: idSchema('connector'),
  entries: v.pipe(
    v.array(v.tuple([idSchema('tunnel'), sequenceSchema, natural])),
    v.maxLength(256),
  ),
});
export type LeaseBatch = v.InferOutput<typeof leaseBatchSchema>;

/** How long a tunnel may move bytes without another decision, in milliseconds. */
export function leaseLengthMs(intervalMs: number): number {
  return Math.max(5_000, 3 * intervalMs);
}

/**
 * One tunnel's permission to move bytes, in control time. Only a higher sequence counts, also when it shortens.
 *
 *   live ──renew(higher)──▶ live ──now ≥ until──▶ expired (for good: a renewal never reopens)
 */
export class Lease {
  #sequence: Sequence;
  #untilMs: number;
  #hasExpired = false;

  constructor(first: { readonly sequence: Sequence; readonly untilMs: number }) {
    this.#sequence = first.sequence;
    this.#untilMs = first.untilMs;
  }

  get untilMs(): number {
    return this.#untilMs;
  }

  get sequence(): Sequence {
    return this.#sequence;
  }

  /** Takes a renewal; answers whether it counted. */
  renew(sequence: Sequence, untilMs: number, nowMs: number): boolean {
    if (!this.isLive(nowMs) || compareSequence(sequence, this.#sequence) <= 0) return false;
    this.#sequence = sequence;
    this.#untilMs = untilMs;
    return true;
  }

  /** True while bytes may move. `nowMs` is control time. Once false, false for good. */
  isLive(nowMs: number): boolean {
    if (!(nowMs < this.#untilMs)) this.#hasExpired = true; // a time that is no number expires it too
    return !this.#hasExpired;
  }
}
