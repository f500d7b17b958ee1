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

/** Connectors that are here to stay, announce the app in their own map and belong to its site. */
export function connectorsServing(
  services: Pick<Services, 'peers'>,
  app: Pick<App, 'name' | 'siteId'>,
): Promise<ConnectorPeer[]> {
  const serving = [...services.peers.connectors.values()].filter(
    (peer) => peer.site === app.siteId && peer.apps.has(app.name) && !peer.isStopping,
  );
  return Promise.resolve(serving);
}

/** True unless the connector's own checks say that the app is down there; one that is not checked counts as well. */
export function isHealthyAt(peer: Pick<ConnectorPeer, 'unhealthy'>, app: string): boolean {
  return !peer.unhealthy.has(app);
}

/** True when some connector serves the app, finds it well and can be reached. */
export async function isAppOnline(
  services: Pick<Services, 'peers'>,
  app: Pick<App, 'name' | 'siteId'>,
): Promise<boolean> {
  const serving = await connectorsServing(services, app);
  return serving.some(
    (peer) => isHealthyAt(peer, app.name) && relaysHolding(services, peer).length > 0,
  );
}

/**
 * Chooses the way to an app among the connectors that serve it and are held by some data plane: one where the app is
 * well before one where it is not, then the one with the fewest live tunnels, then any. Where the app is down at all
 * of them it is tried all the same: a check may be wrong, and the connector's own answer says most. Undefined when
 * there is none.
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
      isHealthy: isHealthyAt(candidate.peer, app.name),
      load: tunnels.about('connector', candidate.peer.id).length,
      lot: Math.random(),
    }))
    .sort((a, b) => Number(b.isHealthy) - Number(a.isHealthy) || a.load - b.load || a.lot - b.lot);
  for (const { peer, relays } of candidates) {
    const connector = await readEnrolled(db, peer.id);
    const isCurrent =
      connector?.instance === peer.instance && peers.connectors.get(peer.id) === peer;
    if (isCurrent) return { connector, peer, relays };
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
