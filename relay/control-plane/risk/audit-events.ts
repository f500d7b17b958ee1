import * as v from 'valibot';
import type { ExportedRecord } from '../audit/index.ts';
import type { RiskEvent } from './event.ts';
import type { Places } from './place.ts';

/** Tunnels whose beginning is remembered until they end. */
const maxTunnels = 65_536;

const textOrNull = v.optional(v.nullable(v.string()), null);
const amount = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const detailsSchema = v.object({
  address: textOrNull,
  tunnel: textOrNull,
  generation: v.optional(v.number()),
  code: textOrNull,
  bytesDown: v.optional(amount),
});

interface Begun {
  readonly atMs: number;
  readonly device: string | null;
  endedAtMs?: number;
}

/**
 * Turns audit records, in the order in which they were written, into what risk goes by: sign-ins and refused ones,
 * decisions on new and resumed tunnels, and the bytes of a tunnel when it has ended. The rest says nothing of a user.
 */
export class AuditEvents {
  readonly #places: Places;
  readonly #tunnels = new Map<string, Begun>();

  constructor(places: Places) {
    this.#places = places;
  }

  /** The event that a record tells of, if any. */
  read(record: ExportedRecord): RiskEvent | undefined {
    const { action, atMs, user, app, actor, outcome } = record;
    const details = v.safeParse(detailsSchema, record.details);
    if (user === null || !details.success || !Number.isSafeInteger(atMs) || atMs < 0)
      return undefined;
    const { address, tunnel, generation, code, bytesDown } = details.output;
    const device = actor.startsWith('device:') ? actor.slice('device:'.length) : null;
    const place = address === null ? null : this.#places.find(address);
    const facts = { atMs, user, app, device, address, place };
    switch (action) {
      case 'session.sign_in':
        if (outcome === 'ok') return { kind: 'sign_in', ...facts };
        // To be asked for a one-time password is a step of signing in.
        return code === 'ERR_IDENTITY_OTP_NEEDED'
          ? undefined
          : { kind: 'sign_in_refused', ...facts };
      case 'decision.made':
        if (outcome === 'refused') return { kind: 'denied', ...facts };
        if (tunnel === null) return undefined; // allowed, but there was no way
        if (generation !== undefined) return { kind: 'resume', ...facts };
        this.#begin(tunnel, { atMs, device });
        return { kind: 'connect', ...facts };
      case 'tunnel.end':
      case 'tunnel.bytes': {
        const begun = this.#tunnels.get(record.subject);
        if (!begun) return undefined;
        const endedAtMs = begun.endedAtMs ?? atMs;
        if (bytesDown === undefined) {
          begun.endedAtMs = endedAtMs; // its connector tells them later
          return undefined;
        }
        this.#tunnels.delete(record.subject);
        const spanMs = Math.max(0, endedAtMs - begun.atMs);
        // Where the user was when it ended is not known.
        const where = { device: begun.device, address: null, place: null };
        return { kind: 'bytes', ...facts, ...where, bytesOut: bytesDown, spanMs };
      }
      default:
        return undefined;
    }
  }

  #begin(tunnel: string, begun: Begun): void {
    this.#tunnels.set(tunnel, begun);
    if (this.#tunnels.size <= maxTunnels) return;
    const [oldest] = this.#tunnels.keys();
    if (oldest !== undefined) this.#tunnels.delete(oldest);
  }
}
