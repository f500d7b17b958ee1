import * as v from 'valibot';
import { idSchema } from '../id.ts';
import { errorCode, statementText } from './channel.ts';

/**
 * Hop control on a data WebSocket: text messages between the data plane and the end that dialled it.
 * Binary messages on the same socket are the tunnel's own and pass through untouched.
 */

/** Data plane → idle connector socket: this socket now carries that tunnel. */
const assign = v.strictObject({
  type: v.literal('assign'),
  tunnel: idSchema('tunnel'),
  grant: statementText,
});
/**
 * Since version 2, to either end of a tunnel and to idle sockets: this relay is about to stop. The client moves its
 * tunnel to another, the connector dials ahead elsewhere.
 */
const drain = v.strictObject({ type: v.literal('drain') });
export const toTunnelEnd = v.variant('type', [drain]);
export type ToTunnelEnd = v.InferOutput<typeof toTunnelEnd>;
export type Assign = v.InferOutput<typeof assign>;
export const toSlot = v.variant('type', [assign, drain]);
export type ToSlot = v.InferOutput<typeof toSlot>;

/** Connector → data plane, within one second of `assign`. */
const assigned = v.strictObject({ type: v.literal('assigned'), tunnel: idSchema('tunnel') });
const refused = v.strictObject({
  type: v.literal('refused'),
  tunnel: idSchema('tunnel'),
  code: errorCode,
});
export const fromSlot = v.variant('type', [assigned, refused]);
export type FromSlot = v.InferOutput<typeof fromSlot>;

/** Request header in which an agent presents its grant, and a connector names its instance. */
export const grantHeader = 'ztna-grant';
export const instanceHeader = 'ztna-instance';

/** Paths of the two kinds of data WebSocket and of the control channel. */
export const tunnelPath = '/v1/tunnel';
export const slotPath = '/v1/slot';
export const channelPath = '/v1/channel';

/** Application protocols (ALPN): each demands one role of the certificate on either side. */
export const dataProtocol = 'ztna-data/1';
export const controlProtocol = 'ztna-control/1';
/**
 * The same for connectors and data planes alone, offered ahead of the other name: whoever decides on an order of service
 * before TLS sees by it that devices wait for this one. It proves nothing; the certificate behind it does.
 */
export const aheadProtocol = 'ztna-control-ahead/1';
export const enrolmentProtocol = 'ztna-enrol/1';
/** Between data planes: a connection for a control plane, handed on as it came, behind a PROXY line. */
export const forwardProtocol = 'ztna-forward/1';
