import { createHash } from 'node:crypto';
import { decodeProtectedHeader, errors, jwtVerify, type JWTPayload } from 'jose';
import * as v from 'valibot';
import { ZtnaError } from '../../../protocol/index.ts';
import { parseEvent, type SignalEvent } from './event.ts';
import type { KeyFinder } from './keys.ts';
import { maxAheadMs, maxTokenBytes } from './limits.ts';

/** What RFC 8935, section 2.4, lets a receiver answer. */
export type SetFault =
  | 'invalid_request'
  | 'invalid_key'
  | 'invalid_issuer'
  | 'invalid_audience'
  | 'authentication_failed'
  | 'access_denied';

const faults: readonly string[] = [
  'invalid_request',
  'invalid_key',
  'invalid_issuer',
  'invalid_audience',
  'authentication_failed',
  'access_denied',
] satisfies readonly SetFault[];

/** Refuses a Security Event Token; `reason` is the word that its transmitter is told. */
export function refuseSet(fault: SetFault, message: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_STATEMENT_REFUSED', { message, reason: fault, cause });
}

/** The word for a transmitter, where `error` is a refusal of its token; undefined for anything that may pass. */
export function setFaultOf(error: unknown): SetFault | undefined {
  if (!(error instanceof ZtnaError) || error.code !== 'ERR_STATEMENT_REFUSED') return undefined;
  return faults.includes(error.reason ?? '') ? (error.reason as SetFault) : 'invalid_request';
}

declare const verified: unique symbol;

/** A token that was verified; `verifySet` alone makes them. */
export interface VerifiedSet {
  readonly [verified]: true;
  readonly jti: string;
  readonly issuedAtMs: number;
  /** SHA-256 of what it claims, in hex: the same token again, whenever it was signed. */
  readonly digest: string;
  readonly event: SignalEvent;
  /** As it came; `subject.ts` reads it. */
  readonly subject: unknown;
}

export interface SetExpectations {
  readonly issuer: string;
  readonly audience: string;
  readonly maxAgeMs: number;
  readonly findKey: KeyFinder;
  readonly nowMs: number;
}

const claims = v.object({
  jti: v.pipe(v.string(), v.minLength(1), v.maxLength(256)),
  iat: v.pipe(v.number(), v.finite(), v.minValue(0)),
  sub_id: v.optional(v.unknown()),
  events: v.record(v.string(), v.looseObject({})),
});

/**
 * Verifies one Security Event Token (RFC 8417, as Shared Signals 1.0 and the CAEP profile narrow it): signed RS256 by
 * a key of at least 2048 bits that its `kid` names, of type `secevent+jwt`, from the issuer and for the audience that are
 * expected, about one event, issued within bounds. Throws ERR_STATEMENT_REFUSED with one of RFC 8935's words as its
 * reason, or ERR_RELAY_UNAVAILABLE when the keys cannot be read at present. Whether its `jti` was seen is for the store.
 */
export async function verifySet(token: string, expected: SetExpectations): Promise<VerifiedSet> {
  if (token.length > maxTokenBytes) throw refuseSet('invalid_request', 'the token is too large');
  checkHeader(token);
  const payload = await verifySignature(token, expected);
  const parsed = v.safeParse(claims, payload);
  if (!parsed.success) throw refuseSet('invalid_request', 'the token lacks jti, iat or events');
  // Both would make it like a token of another kind; Shared Signals 1.0 forbids them.
  if (payload.sub !== undefined || payload.exp !== undefined) {
    throw refuseSet('invalid_request', 'the token has a sub or exp');
  }
  const { jti, iat, sub_id: subId, events } = parsed.output;
  const issuedAtMs = Math.floor(iat * 1_000);
  const { nowMs, maxAgeMs } = expected;
  if (issuedAtMs > nowMs + maxAheadMs) throw refuseSet('invalid_request', 'issued in the future');
  if (issuedAtMs < nowMs - maxAgeMs) throw refuseSet('invalid_request', 'issued too long ago');
  const [first, second] = Object.entries(events);
  if (first === undefined || second !== undefined) {
    throw refuseSet('invalid_request', 'the token must hold exactly one event');
  }
  const [uri, body] = first;
  const event = parseEvent(uri, body, issuedAtMs);
  // Until the final text the subject was a member of the event.
  const subject = subId ?? body['subject'];
  const digest = createHash('sha256').update(JSON.stringify(payload)).digest('hex');
  return { jti, issuedAtMs, digest, event, subject } as VerifiedSet;
}

/** What the header says, before anything is done about it. */
function checkHeader(token: string): void {
  let header;
  try {
    header = decodeProtectedHeader(token);
  } catch (cause) {
    throw refuseSet('invalid_request', 'this is no token', cause);
  }
  const { typ, alg, kid } = header;
  if (typ?.toLowerCase() !== 'secevent+jwt' && typ?.toLowerCase() !== 'application/secevent+jwt') {
    throw refuseSet('invalid_request', 'the token is not of type secevent+jwt');
  }
  if (alg !== 'RS256') throw refuseSet('invalid_key', 'the token is not signed by RS256');
  if (typeof kid !== 'string' || kid.length > 256) {
    throw refuseSet('invalid_key', 'the token does not name its key');
  }
}

async function verifySignature(token: string, expected: SetExpectations): Promise<JWTPayload> {
  const { issuer, audience, findKey, nowMs } = expected;
  try {
    const { payload } = await jwtVerify(token, findKey, {
      algorithms: ['RS256'],
      typ: 'secevent+jwt',
      issuer,
      audience,
      currentDate: new Date(nowMs),
      // Ours say more: they tell too early from too late.
      clockTolerance: Math.ceil((expected.maxAgeMs + maxAheadMs) / 1_000),
    });
    return payload;
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    throw faultOf(cause);
  }
}

function faultOf(cause: unknown): ZtnaError {
  if (cause instanceof errors.JWTClaimValidationFailed) {
    const { claim } = cause;
    if (claim === 'iss') return refuseSet('invalid_issuer', 'the issuer is another', cause);
    if (claim === 'aud') return refuseSet('invalid_audience', 'the audience is another', cause);
    return refuseSet('invalid_request', `its ${claim} is refused`, cause);
  }
  if (
    cause instanceof errors.JWSSignatureVerificationFailed ||
    cause instanceof errors.JWKSNoMatchingKey ||
    cause instanceof errors.JWKSMultipleMatchingKeys ||
    cause instanceof errors.JOSENotSupported ||
    cause instanceof errors.JOSEAlgNotAllowed ||
    cause instanceof TypeError // a key that is too small, or not for this
  ) {
    return refuseSet('invalid_key', 'no key of the issuer has signed this', cause);
  }
  if (cause instanceof errors.JOSEError) {
    return refuseSet('invalid_request', 'this is no token', cause);
  }
  return new ZtnaError('ERR_INTERNAL', { cause });
}
