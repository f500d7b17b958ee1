import { randomInt } from 'node:crypto';
import {
  wireVersion,
  type ConnectorId,
  type RelayId,
  type SiteId,
} from '../../../protocol/index.ts';
import type { ConnectorPeer, RelayPeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import type { App, Connector, Reader, Tx } from '../store/index.ts';

/** One of the relays that a path may take. */
export interface RouteRelay {
  readonly id: RelayId;
  readonly url: string;
  /** Round trip of the connector to it, where that is known. */
  readonly connectorMs: number | null;
}

/** A connector that serves an app now, and the data planes that hold idle sockets of its present process. */
export interface Route {
  readonly connector: Connector;
  readonly peer: ConnectorPeer;
  /** In order of preference. */
  readonly relays: readonly RouteRelay[];
  /** The highest version of the wire that all of them speak. */
  readonly version: number;
}

/** What a route must and should be like. */
export interface RouteWish {
  /** The agent's version. */
  readonly version: number;
  /** The least version that will do. */
  readonly leastVersion: number;
  /** Relays to name only if there is no other. */
  readonly avoid: readonly RelayId[];
}

/** Why there is no route. */
export type NoRoute = 'offline' | 'draining';

/** The most relays that a grant may name. */
const maxRelays = 16;

/** Connectors that are here to stay, announce the app in their own map and belong to its site. */
export function connectorsServing(
  services: Pick<Services, 'peers'>,
  app: { readonly name: string; readonly siteId: SiteId },
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
 * Chooses the way to a new tunnel's app among the connectors that serve it and are held by some data plane: one held by
 * relays that are not to be avoided before others, then one where the app is well, then the one with the fewest live
 * tunnels, then one that is near to a relay, then any. Where the app is down at all of them it is tried all the same: a check may be wrong, and the
 * connector's own answer says most.
 */
export async function chooseRoute(
  services: Pick<Services, 'peers' | 'tunnels'>,
  db: Reader | Tx,
  app: App,
  wish: RouteWish,
): Promise<Route | NoRoute> {
  const { peers, tunnels } = services;
  const serving = await connectorsServing(services, app);
  let isDraining = false;
  const candidates: Candidate[] = [];
  for (const peer of serving) {
    const way = wayTo(services, peer, wish);
    if (way === 'draining') isDraining = true;
    if (typeof way === 'string') continue;
    candidates.push({
      peer,
      way,
      isHealthy: isHealthyAt(peer, app.name),
      load: tunnels.about('connector', peer.id).length,
      distance: distanceOf(way),
      lot: randomInt(1_000_000),
    });
  }
  candidates.sort(compare);
  for (const { peer, way } of candidates) {
    const connector = await readEnrolled(db, peer.id);
    const isCurrent =
      connector?.instance === peer.instance && peers.connectors.get(peer.id) === peer;
    if (isCurrent) return { connector, peer, ...way };
  }
  return isDraining ? 'draining' : 'offline';
}

interface Candidate {
  readonly peer: ConnectorPeer;
  readonly way: Way;
  readonly isHealthy: boolean;
  readonly load: number;
  readonly distance: number;
  readonly lot: number;
}

/** The better one first. */
function compare(a: Candidate, b: Candidate): number {
  return (
    Number(a.way.isAvoided) - Number(b.way.isAvoided) ||
    Number(b.isHealthy) - Number(a.isHealthy) ||
    a.load - b.load ||
    a.distance - b.distance ||
    a.lot - b.lot
  );
}

/** Round trips that differ by less are alike, in milliseconds. */
const distanceStepMs = 10;

/** How far the connector is from the nearest of these relays, in steps; one that has not told is far. */
function distanceOf({ relays }: Way): number {
  const nearestMs = Math.min(...relays.map(({ connectorMs }) => connectorMs ?? 1_000_000));
  return Math.floor(nearestMs / distanceStepMs);
}

/** The way to one connector, for a tunnel that is there already. */
export async function routeTo(
  services: Pick<Services, 'peers'>,
  db: Reader | Tx,
  peer: ConnectorPeer,
  wish: RouteWish,
): Promise<Route | NoRoute> {
  const way = wayTo(services, peer, wish);
  if (typeof way === 'string') return way;
  const connector = await readEnrolled(db, peer.id);
  return connector ? { connector, peer, ...way } : 'offline';
}

interface Way {
  readonly relays: readonly RouteRelay[];
  readonly version: number;
  /** There is none but relays to avoid. */
  readonly isAvoided: boolean;
}

/**
 * Relays by which a connector is reached. One version is signed into a grant, so the older relays are named only where
 * there is no newer one.
 */
function wayTo(
  services: Pick<Services, 'peers'>,
  peer: ConnectorPeer,
  wish: RouteWish,
): Way | NoRoute {
  const ends = Math.min(wish.version, peer.version, wireVersion);
  if (ends < wish.leastVersion) return 'offline';
  const holding = relaysHolding(services, peer).filter(
    (relay) => relay.version >= wish.leastVersion,
  );
  const lasting = holding.filter((relay) => !relay.isDraining);
  if (lasting.length === 0) return holding.length > 0 ? 'draining' : 'offline';
  const wanted = lasting.filter((relay) => !wish.avoid.includes(relay.id));
  const named = wanted.length > 0 ? wanted : lasting;
  const version = Math.min(ends, Math.max(...named.map((relay) => relay.version)));
  const relays = named
    .filter((relay) => relay.version >= version)
    .map(({ id, url }) => ({ id, url, connectorMs: peer.roundTrips.get(id) ?? null }))
    .sort((a, b) => (a.connectorMs ?? Infinity) - (b.connectorMs ?? Infinity) || 0)
    .slice(0, maxRelays);
  return { relays, version, isAvoided: wanted.length === 0 };
}

/**
 * Data planes that hold this very process of the connector. One whose idle sockets are used up at this moment counts:
 * the connector is dialling the next, and the data plane waits for it.
 */
export function relaysHolding(
  services: Pick<Services, 'peers'>,
  peer: Pick<ConnectorPeer, 'id' | 'instance'>,
): RelayPeer[] {
  return [...services.peers.relays.values()].filter((relay) => {
    const slots = relay.slots.get(peer.id);
    return slots?.instance === peer.instance;
  });
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
