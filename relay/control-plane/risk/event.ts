import { isIP } from 'node:net';
import * as v from 'valibot';
import { limitKeyOf, plainAddress } from '../../data-plane/address.ts';

/** Where an address is said to lie. Any part may be unknown. */
export interface Place {
  readonly country: string | null; // two letters
  readonly network: number | null; // number of the autonomous system
  readonly latitude: number | null; // degrees, with longitude or not at all
  readonly longitude: number | null;
}

interface EventFacts {
  /** Control time. */
  readonly atMs: number;
  readonly user: string;
  readonly device: string | null;
  readonly app: string | null;
  readonly address: string | null;
  readonly place: Place | null;
}

/**
 * One thing that a user did, as far as risk goes by it. `resume` takes up a tunnel that was there already, `denied` is
 * a refused connect. `bytes` counts what an app sent towards the device since the count before: `spanMs` is how long
 * that took.
 */
export type RiskEvent = EventFacts &
  (
    | { readonly kind: 'sign_in' | 'sign_in_refused' | 'connect' | 'resume' | 'denied' }
    | { readonly kind: 'bytes'; readonly bytesOut: number; readonly spanMs: number }
  );

const text = v.pipe(v.string(), v.minLength(1), v.maxLength(256));
const degrees = (most: number) => v.pipe(v.number(), v.minValue(-most), v.maxValue(most));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const placeSchema = v.strictObject({
  country: v.optional(v.nullable(v.pipe(v.string(), v.regex(/^[A-Z]{2}$/))), null),
  network: v.optional(v.nullable(v.pipe(count, v.maxValue(0xffff_ffff))), null),
  latitude: v.optional(v.nullable(degrees(90)), null),
  longitude: v.optional(v.nullable(degrees(180)), null),
});

const facts = {
  atMs: v.pipe(count, v.maxValue(8.64e15)),
  user: text,
  device: v.optional(v.nullable(text), null),
  app: v.optional(v.nullable(text), null),
  address: v.optional(v.nullable(text), null),
  place: v.optional(v.nullable(placeSchema), null),
};

const eventSchema = v.variant('kind', [
  v.strictObject({
    kind: v.picklist(['sign_in', 'sign_in_refused', 'connect', 'resume', 'denied']),
    ...facts,
  }),
  v.strictObject({ kind: v.literal('bytes'), ...facts, bytesOut: count, spanMs: count }),
]);

/** An event as someone wrote it down; undefined for anything else. What may be unknown may be left out. */
export function parseRiskEvent(value: unknown): RiskEvent | undefined {
  const result = v.safeParse(eventSchema, value);
  return result.success ? result.output : undefined;
}

/**
 * What of an address tells two places apart: IPv4 whole, of IPv6 the first 64 bits, as machines change the rest by
 * themselves. Undefined for what is no address.
 */
export function addressKey(address: string): string | undefined {
  const plain = plainAddress(address);
  return isIP(plain) === 0 ? undefined : limitKeyOf(plain);
}
