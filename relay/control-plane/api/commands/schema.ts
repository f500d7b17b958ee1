import * as v from 'valibot';

/** Policy texts by file name. */
export const policyFiles = v.record(
  v.pipe(v.string(), v.minLength(1), v.maxLength(255)),
  v.pipe(v.string(), v.maxLength(65_536)),
);
export const none = v.strictObject({});
export const word = v.pipe(v.string(), v.minLength(1), v.maxLength(128));
export const byName = v.strictObject({ name: word });
export const byId = v.strictObject({ id: word });
export const instantMs = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const words = v.optional(v.pipe(v.array(word), v.maxLength(256)), []);
