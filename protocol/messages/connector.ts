import * as v from 'valibot';
import { idSchema } from '../id.ts';
import { natural, reason, text } from '../schema.ts';
import {
  bundle,
  leases,
  log,
  errorCode,
  relays,
  statementText,
  timeAnswer,
  timeRequest,
  versions,
} from './channel.ts';

const appNames = v.pipe(v.array(text(64)), v.maxLength(256));

const hello = v.strictObject({
  type: v.literal('hello'),
  versions,
  software: text(64),
  bundleVersion: natural,
  instance: idSchema('instance'), // new at every start of the process
  apps: appNames, // of its own map; targets never leave the connector
  tunnels: v.pipe(v.array(idSchema('tunnel')), v.maxLength(4096)), // still open here
});

/** The connector's own map changed. */
const apps = v.strictObject({ type: v.literal('apps'), apps: appNames });

const tunnelOpened = v.strictObject({
  type: v.literal('tunnel_opened'),
  tunnel: idSchema('tunnel'),
});

/** Bytes are counted at the app: `bytesUp` towards it, `bytesDown` from it. */
const tunnelClosed = v.strictObject({
  type: v.literal('tunnel_closed'),
  tunnel: idSchema('tunnel'),
  code: errorCode,
  reason,
  bytesUp: natural,
  bytesDown: natural,
});

/** A grant that this connector refused, for the audit log. `tunnel` is as the grant claimed. */
const grantRefused = v.strictObject({
  type: v.literal('grant_refused'),
  tunnel: idSchema('tunnel'),
  code: errorCode,
  reason,
});

/** Since version 2: the tunnel has no path any more and its ends are kept. */
const tunnelDetached = v.strictObject({
  type: v.literal('tunnel_detached'),
  tunnel: idSchema('tunnel'),
  generation: natural, // of the path that is gone
  reason,
});

/** Since version 2: the tunnel moves on, on a path of this generation. */
const tunnelResumed = v.strictObject({
  type: v.literal('tunnel_resumed'),
  tunnel: idSchema('tunnel'),
  generation: natural,
});

/** Since version 2: what the health checks of its apps found; sent at once and on change. */
const appHealth = v.strictObject({
  type: v.literal('app_health'),
  apps: v.pipe(v.array(v.tuple([text(64), v.boolean()])), v.maxLength(256)),
});

/** Since version 2: how far the connector is from each relay, in milliseconds; sent now and then. */
const roundTrips = v.strictObject({
  type: v.literal('round_trips'),
  relays: v.pipe(v.array(v.tuple([idSchema('relay'), natural])), v.maxLength(64)),
});

/** Since version 2: this process takes no new tunnels and ends when its last one has. */
const stopping = v.strictObject({ type: v.literal('stopping') });

/** Since version 3: bytes so far at the apps, of tunnels where they have changed; every few seconds. */
const byteCounts = v.strictObject({
  type: v.literal('byte_counts'),
  tunnels: v.pipe(v.array(v.tuple([idSchema('tunnel'), natural, natural])), v.maxLength(512)), // up, down
});

/** Since version 3: a tunnel was cut here; `statement` is of kind `receipt`. */
const receipt = v.strictObject({ type: v.literal('receipt'), statement: statementText });

/** Connector → control plane. */
export const fromConnector = v.variant('type', [
  hello,
  timeRequest,
  apps,
  tunnelOpened,
  tunnelClosed,
  grantRefused,
  tunnelDetached,
  tunnelResumed,
  appHealth,
  roundTrips,
  stopping,
  byteCounts,
  receipt,
]);
export type FromConnector = v.InferOutput<typeof fromConnector>;

/** App names of this connector's site with their ids; names it serves that are missing here are not routed. */
const appIds = v.pipe(v.array(v.tuple([text(64), idSchema('app')])), v.maxLength(256));

const welcome = v.strictObject({
  type: v.literal('welcome'),
  version: natural,
  connector: idSchema('connector'),
  name: text(64),
  bundle: v.nullable(statementText),
  appIds,
  relays: v.array(v.strictObject({ id: idSchema('relay'), url: text(256) })),
  slots: natural, // data WebSockets to keep dialled ahead on each relay
});

const assignedApps = v.strictObject({ type: v.literal('app_ids'), appIds });

/** Control plane → connector. */
export const toConnector = v.variant('type', [
  welcome,
  timeAnswer,
  leases,
  log,
  bundle,
  assignedApps,
  relays,
]);
export type ToConnector = v.InferOutput<typeof toConnector>;
