import {
  ZtnaError,
  type ConnectorId,
  type FromConnector,
  type RevocationEntry,
  type ToConnector,
} from '../../../protocol/index.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import type { ConnectorPeer } from '../live/peers.ts';
import { tellRelays } from '../relays/relay-list.ts';
import type { Services } from '../services.ts';
import {
  chooseVersion,
  concernsAny,
  newerBundle,
  readOwnTunnels,
  readTunnelSubjects,
  registerPeer,
} from './common.ts';
import { readAppIds } from './connector-apps.ts';
import { reportDuplicate, takeInstance } from './connector-instance.ts';
import { reconcile } from './connector-reconcile.ts';
import type { ServerChannel } from './server-channel.ts';

/** Data WebSockets that a connector keeps dialled ahead on each relay. */
const slotsAhead = 4;

/**
 * Answers a connector's hello: its process becomes the one that counts, is welcomed and told what it missed, and store
 * and connector are brought to one view of its tunnels. `onRegistered` is called before anything is sent. Throws
 * ERR_HANDSHAKE_VERSION, ERR_CONNECTOR_REPLACED or ERR_IDENTITY_REVOKED.
 */
export async function greetConnector(
  services: Services,
  channel: ServerChannel<FromConnector, ToConnector>,
  dialler: ControlPeer,
  hello: Extract<FromConnector, { type: 'hello' }>,
  onRegistered: (peer: ConnectorPeer) => void,
): Promise<void> {
  const { store, peers } = services;
  const version = chooseVersion(hello.versions);
  const id = dialler.id as ConnectorId;
  const row = await store.write((tx) => takeInstance(services, tx, id, hello.instance));
  // Whatever else it names is no business of its own.
  const known = (await readTunnelSubjects(services, hello.tunnels)).filter(
    (tunnel) => tunnel.connector === id,
  );
  const appIds = await readAppIds(store.db, row.siteId);
  const relays = await readRelays(services);
  const readOwn = async () => {
    const own = await readOwnTunnels(services, 'connector', id);
    return (entry: RevocationEntry) =>
      concernsAny(entry, { kind: 'connector', id }, [...known, ...own]);
  };
  const since = known.map(({ tunnel }) => tunnel);
  let isDuplicate = false as boolean;
  const register = () => {
    channel.throwIfOver();
    if (!peers.isNewest(id, hello.instance)) throw new ZtnaError('ERR_CONNECTOR_REPLACED');
    const registered: ConnectorPeer = {
      id,
      name: row.name,
      site: row.siteId,
      instance: hello.instance,
      address: dialler.address,
      version,
      apps: new Set(hello.apps),
      unhealthy: new Set(),
      signingKey: row.signingKey,
      isStopping: false,
      roundTrips: new Map(),
      toldTo: 0,
      send: (message) => {
        channel.send(message);
      },
      close: (error) => {
        channel.close(error);
      },
    };
    const older = peers.addConnector(registered);
    services.absences.comeBack(id);
    onRegistered(registered);
    isDuplicate = older !== undefined && older.instance !== hello.instance;
    older?.close(new ZtnaError(isDuplicate ? 'ERR_CONNECTOR_REPLACED' : 'ERR_RELAY_UNAVAILABLE'));
    registered.send({
      type: 'welcome',
      version,
      connector: id,
      name: row.name,
      bundle: newerBundle(services, hello.bundleVersion),
      appIds,
      relays,
      slots: slotsAhead,
    });
    tellRelays(services, registered);
    return registered;
  };
  const peer = await registerPeer(services, since, readOwn, register, async () => {
    const now = await store.db
      .selectFrom('connectors')
      .select('state')
      .where('id', '=', id)
      .executeTakeFirst();
    return now?.state === 'enrolled';
  });
  if (isDuplicate) await reportDuplicate(services, peer);
  await reconcile(services, peer, hello.tunnels, known);
}

async function readRelays(services: Services) {
  return services.store.db
    .selectFrom('relays')
    .select(['id', 'url'])
    .where('state', '=', 'enrolled')
    .orderBy('id')
    .execute();
}
