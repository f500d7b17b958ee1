import * as v from 'valibot';
import { idSchema } from '../id.ts';
import { bytes, natural, reason, text } from '../schema.ts';
import {
  bundle,
  errorCode,
  leases,
  log,
  relays,
  statementText,
  timeAnswer,
  timeRequest,
  versions,
} from './channel.ts';

const hello = v.strictObject({
  type: v.literal('hello'),
  versions,
  software: text(64),
  bundleVersion: natural,
  tunnels: v.pipe(v.array(idSchema('tunnel')), v.maxLength(65_536)), // being spliced here
});

/** How many idle sockets one connector process keeps here; sent when it turns to or from zero. */
const slots = v.strictObject({
  type: v.literal('slots'),
  connector: idSchema('connector'),
  instance: idSchema('instance'),
  idle: natural,
});

const tunnelClosed = v.strictObject({
  type: v.literal('tunnel_closed'),
  tunnel: idSchema('tunnel'),
  code: errorCode,
  reason,
  bytesUp: natural, // sealed bytes, client → connector
  bytesDown: natural,
});

/** Something refused at the front door, for the audit log. */
const admissionRefused = v.strictObject({
  type: v.literal('admission_refused'),
  code: errorCode,
  reason,
  peer: v.nullable(text(64)), // id in the peer's certificate, if it had one
  address: text(64),
});

/** Since version 2: both ends of a tunnel's path have met here. */
const tunnelJoined = v.strictObject({
  type: v.literal('tunnel_joined'),
  tunnel: idSchema('tunnel'),
  generation: natural, // of the path
});

/** Since version 2: it takes no new tunnels, and those it has are told to move. */
const draining = v.strictObject({ type: v.literal('draining') });

/** Since version 3: the key that signs this process's receipts, Ed25519, in base64url; said once, behind the welcome. */
const receiptKey = v.strictObject({ type: v.literal('receipt_key'), key: bytes(32) });

/** Since version 3: a tunnel was cut here; `statement` is of kind `receipt`. */
const receipt = v.strictObject({ type: v.literal('receipt'), statement: statementText });

/** Data plane → control plane. */
export const fromRelay = v.variant('type', [
  hello,
  timeRequest,
  slots,
  tunnelClosed,
  admissionRefused,
  tunnelJoined,
  draining,
  receiptKey,
  receipt,
]);
export type FromRelay = v.InferOutput<typeof fromRelay>;

const welcome = v.strictObject({
  type: v.literal('welcome'),
  version: natural,
  relay: idSchema('relay'),
  bundle: v.nullable(statementText),
});

/** Control plane → data plane. `log` carries every entry; its audience is the relay's id. */
export const toRelay = v.variant('type', [welcome, timeAnswer, leases, log, bundle, relays]);
export type ToRelay = v.InferOutput<typeof toRelay>;
