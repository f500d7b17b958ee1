import type { ConnectorId, RelayId } from '../../../protocol/index.ts';
import type { ConnectorPeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import type { App, Connector, Reader, Tx } from '../store/index.ts';

/** A connector that serves an app now, and the data planes that hold idle sockets of its present process. */
export interface Route {
  readonly connector: Connector;
  readonly peer: ConnectorPeer;
  readonly relays: readonly { readonly id: RelayId; readonly url: string }[];
}

/** The most relays that a grant may name. */
const maxRelays = 16;

/** Connectors that are here, announce the app in their own map and belong to its site. */
export function connectorsServing(
  services: Pick<Services, 'peers'>,
  app: Pick<App, 'name' | 'siteId'>,
): Promise<ConnectorPeer[]> {
  const serving = [...services.peers.connectors.values()].filter(
    (peer) => peer.site === app.siteId && peer.apps.has(app.name),
  );
  return Promise.resolve(serving);
}

/**
 * Chooses the way to an app: the connector with the fewest live tunnels among those that serve it and are held by
 * some data plane. Undefined when there is none.
 */
export async function chooseRoute(
  services: Pick<Services, 'peers' | 'tunnels'>,
  db: Reader | Tx,
  app: App,
): Promise<Route | undefined> {
  const { peers, tunnels } = services;
  const candidates = (await connectorsServing(services, app))
    .map((peer) => ({ peer, relays: relaysHolding(services, peer) }))
    .filter(({ relays }) => relays.length > 0)
    .map((candidate) => ({
      ...candidate,
      load: tunnels.about('connector', candidate.peer.id).length,
    }))
    .sort((a, b) => a.load - b.load);
  for (const { peer, relays } of candidates) {
    const connector = await readEnrolled(db, peer.id);
    if (connector && peers.connectors.get(peer.id) === peer) return { connector, peer, relays };
  }
  return undefined;
}

/**
 * Data planes that hold this very process of the connector. One whose idle sockets are used up at this moment counts:
 * the connector is dialling the next, and the data plane waits for it.
 */
export function relaysHolding(
  services: Pick<Services, 'peers'>,
  peer: Pick<ConnectorPeer, 'id' | 'instance'>,
): { id: RelayId; url: string }[] {
  return [...services.peers.relays.values()]
    .filter((relay) => {
      const slots = relay.slots.get(peer.id);
      return slots?.instance === peer.instance;
    })
    .slice(0, maxRelays)
    .map(({ id, url }) => ({ id, url }));
}

async function readEnrolled(db: Reader | Tx, id: ConnectorId): Promise<Connector | undefined> {
  return db
    .selectFrom('connectors')
    .selectAll()
    .where('id', '=', id)
    .where('state', '=', 'enrolled')
    .executeTakeFirst();
}

/** The roster's signed word on a connector: its keys, its site and the apps of that site. */
export async function signRoster(
  services: Pick<Services, 'authority'>,
  db: Reader | Tx,
  connector: Connector,
  app: App['id'],
): Promise<string> {
  const rows = await db
    .selectFrom('apps')
    .select('id')
    .where('siteId', '=', connector.siteId)
    .orderBy('createdAtMs')
    .limit(maxRosterApps)
    .execute();
  const ids = new Set(rows.map((row) => row.id));
  ids.add(app);
  return services.authority.signRosterEntry({
    connector: connector.id,
    site: connector.siteId,
    noiseKey: connector.noiseKey,
    signingKey: connector.signingKey,
    apps: [...ids].slice(-maxRosterApps),
  });
}

/** As the roster's schema allows, and so that its statement stays below the handshake's cap. */
const maxRosterApps = 256;
