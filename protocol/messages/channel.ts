import * as v from 'valibot';
import { errorRows, type ErrorCode } from '../errors.ts';
import { bytes, natural, reason, text } from '../schema.ts';

/**
 * What every control channel carries, whoever holds it. One WebSocket, text messages, ALPN `ztna-control/1`.
 * The dialler speaks first (`hello` of its role), the control plane answers `welcome` of that role.
 * Requests carry an `id` that ascends from 1; the answer carries the same.
 */
export const statementText = v.pipe(v.string(), v.maxLength(65_536));

const codes = errorRows().map((row) => row.code) as [ErrorCode, ...ErrorCode[]];
export const errorCode = v.picklist(codes);

/** Asks for a signed control time. */
export const timeRequest = v.strictObject({ type: v.literal('time'), nonce: bytes(16) });

/** Answers it; `statement` is of kind `time`. */
export const timeAnswer = v.strictObject({ type: v.literal('time'), statement: statementText });

/** Answers request `id` with a refusal. `message`, `fix` and `ref` are for the person. */
export const refusal = v.strictObject({
  type: v.literal('refusal'),
  id: natural,
  code: errorCode,
  message: v.nullable(text(500)),
  fix: v.nullable(text(500)),
  ref: v.nullable(text(64)),
});

/** Renewed leases; `statement` is of kind `lease`. */
export const leases = v.strictObject({ type: v.literal('leases'), statement: statementText });

/** Revocation log entries or a heartbeat; `statement` is of kind `log`. */
export const log = v.strictObject({ type: v.literal('log'), statement: statementText });

/** A newer signed bundle; `statement` is of kind `bundle`. */
export const bundle = v.strictObject({ type: v.literal('bundle'), statement: statementText });

/** Since version 2: the deployment's relays, after the welcome and at each change; `statement` is of kind `relays`. */
export const relays = v.strictObject({ type: v.literal('relays'), statement: statementText });

/** The protocol versions a dialler speaks. */
export const versions = v.strictObject({ min: natural, max: natural });

/** A reason for an end, as told to people and machines. */
export const ending = v.strictObject({ code: errorCode, reason });
