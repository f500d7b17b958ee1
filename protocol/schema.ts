import * as v from 'valibot';

/** The building blocks that message and statement schemas share. */

/** A safe, non-negative integer: counts, positions, milliseconds. */
export const natural = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** Well-formed text of at most `max` UTF-16 units without control characters. */
export function text(max: number) {
  return v.pipe(
    v.string(),
    v.maxLength(max),
    v.regex(/^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$/),
    v.check((s) => s.isWellFormed()),
  );
}

/** Unpadded base64url of exactly `bytes` bytes. */
export function bytes(count: number) {
  return v.pipe(
    v.string(),
    v.check(
      (s) =>
        s.length === Math.ceil((count * 4) / 3) &&
        Buffer.from(s, 'base64url').toString('base64url') === s,
    ),
  );
}

/** A `snake_case` reason. */
export const reason = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9_]{0,63}$/));
