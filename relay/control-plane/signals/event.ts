import * as v from 'valibot';
import { ZtnaError } from '../../../protocol/index.ts';

const caep = 'https://schemas.openid.net/secevent/caep/event-type/';
const ssf = 'https://schemas.openid.net/secevent/ssf/event-type/';
const risc = 'https://schemas.openid.net/secevent/risc/event-type/';

const text = v.pipe(v.string(), v.maxLength(2_048));
/** Levels of risk; CAEP writes them in capitals. */
const riskLevel = v.picklist(['LOW', 'MEDIUM', 'HIGH']);
const compliance = v.picklist(['compliant', 'not-compliant']);

/** What each event that means something to us must say; it may say more. */
const schemas = {
  [`${caep}session-revoked`]: v.object({}),
  [`${caep}token-claims-change`]: v.object({ claims: v.record(v.string(), v.unknown()) }),
  [`${caep}credential-change`]: v.object({
    credential_type: text,
    change_type: v.picklist(['create', 'revoke', 'update', 'delete']),
  }),
  [`${caep}assurance-level-change`]: v.object({
    namespace: v.optional(text, ''),
    current_level: text,
    previous_level: v.optional(text),
    change_direction: v.optional(v.picklist(['increase', 'decrease'])),
  }),
  [`${caep}device-compliance-change`]: v.object({
    current_status: compliance,
    previous_status: v.optional(compliance),
  }),
  [`${caep}risk-level-change`]: v.object({
    principal: text,
    current_level: riskLevel,
    previous_level: v.optional(riskLevel),
    risk_reason: v.optional(text),
  }),
  [`${caep}session-established`]: v.object({}),
  [`${caep}session-presented`]: v.object({}),
  [`${risc}account-disabled`]: v.object({ reason: v.optional(text) }),
  [`${risc}account-enabled`]: v.object({}),
  [`${risc}account-purged`]: v.object({}),
  [`${risc}account-credential-change-required`]: v.object({}),
  [`${risc}credential-compromise`]: v.object({ credential_type: v.optional(text) }),
  [`${risc}sessions-revoked`]: v.object({}),
  [`${risc}identifier-changed`]: v.object({}),
  [`${risc}identifier-recycled`]: v.object({}),
  [`${risc}opt-in`]: v.object({}),
  [`${risc}opt-out-initiated`]: v.object({}),
  [`${risc}opt-out-cancelled`]: v.object({}),
  [`${risc}opt-out-effective`]: v.object({}),
  [`${risc}recovery-activated`]: v.object({}),
  [`${risc}recovery-information-changed`]: v.object({}),
  [`${ssf}verification`]: v.object({ state: v.optional(text) }),
  [`${ssf}stream-updated`]: v.object({ status: text, reason: v.optional(text) }),
} as const;

/** Every event type that is known here, as the address that names it. */
export const eventTypes: readonly string[] = Object.keys(schemas);

/** What any event may say of itself. */
const common = v.object({
  event_timestamp: v.optional(v.pipe(v.number(), v.finite(), v.minValue(0))),
  initiating_entity: v.optional(text),
  reason_admin: v.optional(v.union([text, v.record(v.string(), text)])),
});

/** One event, its members checked. */
export interface SignalEvent {
  /** The last part of its address: `session-revoked`; `unknown` for one that means nothing here. */
  readonly type: string;
  readonly uri: string;
  /** What its kind must say. */
  readonly facts: Readonly<Record<string, unknown>>;
  /** When it happened; later than it was issued means: as it was issued. */
  readonly happenedAtMs: number;
  readonly initiator: string | null;
  readonly why: string | null;
}

/** Reads the payload of an event. Throws ERR_STATEMENT_REFUSED with reason `invalid_request`. */
export function parseEvent(uri: string, payload: unknown, issuedAtMs: number): SignalEvent {
  const schema = Object.hasOwn(schemas, uri) ? schemas[uri as keyof typeof schemas] : undefined;
  const general = v.safeParse(common, payload);
  const own = v.safeParse(schema ?? v.object({}), payload);
  if (!general.success || !own.success) {
    throw new ZtnaError('ERR_STATEMENT_REFUSED', {
      message: `the event says not what ${uri.split('/').at(-1) ?? 'it'} must say`,
      reason: 'invalid_request',
    });
  }
  const { event_timestamp: at, initiating_entity: initiator, reason_admin: why } = general.output;
  // Seconds by the final text, milliseconds by the drafts before it.
  const toldMs = at === undefined ? issuedAtMs : at > 100_000_000_000 ? at : at * 1_000;
  return {
    type: schema ? (uri.split('/').at(-1) ?? 'unknown') : 'unknown',
    uri: uri.slice(0, 256),
    facts: own.output,
    happenedAtMs: Math.min(Math.floor(toldMs), issuedAtMs),
    initiator: initiator?.slice(0, 64) ?? null,
    why: (typeof why === 'string' ? why : Object.values(why ?? {})[0])?.slice(0, 500) ?? null,
  };
}
