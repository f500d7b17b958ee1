import {
  verifyGrantAtConnector,
  ZtnaError,
  type AppId,
  type Bundle,
  type ConnectorId,
  type Grant,
  type InstanceId,
  type ProvedClient,
  type RevocationEntry,
  type RevocationSubjects,
  type TunnelId,
  type VerifiedGrant,
} from '../protocol/index.ts';
import { maxTunnels, maxTunnelsPerDevice } from './limits.ts';
import { TunnelLease } from './tunnel-lease.ts';
import type { ServedApp } from './app-map.ts';
import type { UsedGrants } from './used-grants.ts';

/**
 * The connector decides last. A client that has proved its key passes these checks in this order, or is
 * refused with one code; nothing of it reaches an app before the last.
 *
 *   time known ─▶ grant verified ─▶ tunnel as assigned ─▶ log complete up to the grant ─▶ (time passed) verified
 *   again ─▶ not revoked ─▶ app ours ─▶ room, or for a later path the tunnel ours ─▶ lease live ─▶ used once
 */
export interface Gate {
  readonly bundle: () => Bundle;
  readonly connector: ConnectorId;
  readonly instance: InstanceId;
  readonly nowMs: () => number | undefined;
  readonly feed: GateFeed;
  readonly apps: () => ReadonlyMap<AppId, ServedApp>;
  readonly usedGrants: UsedGrants;
  readonly openTunnels: () => TunnelCounts;
}

/** What the gate needs of the revocation log; a `RevocationFeed` fits. */
export interface GateFeed {
  waitFor(position: number, incarnation: number, timeoutMs?: number): Promise<boolean>;
  isRevokedAfter(
    subjects: RevocationSubjects,
    incarnation: number,
    position: number,
  ): RevocationEntry | undefined;
}

/** A tunnel that is kept here, as far as another path of it is concerned. */
export interface KnownTunnel {
  /** Of its present path, or its last. */
  readonly grant: VerifiedGrant<'connector'>;
  readonly lease: TunnelLease;
  /** False for one that ends with its path. */
  readonly isResumable: boolean;
}

export interface TunnelCounts<T extends KnownTunnel = KnownTunnel> {
  readonly total: number;
  ofDevice(device: string): number;
  find(tunnel: TunnelId): T | undefined;
}

/** What a client that passed may do: open a tunnel, or take one up again if it also proves to be its client. */
export interface Admission {
  readonly grant: VerifiedGrant<'connector'>;
  readonly app: ServedApp;
  readonly lease: TunnelLease;
}

/** Runs every check. Throws the first refusal; then nothing was recorded. */
export async function admitClient(
  client: Pick<ProvedClient, 'grantStatement' | 'peerStatic'>,
  assigned: TunnelId,
  gate: Gate,
  waitMs?: number,
): Promise<Admission> {
  const early = verifyNow(client, gate);
  checkTunnel(early, assigned);
  checkLogComplete(await gate.feed.waitFor(early.position, early.incarnation, waitMs));
  // From here to the record of use nothing is awaited, so nothing that was checked can change.
  const grant = verifyNow(client, gate);
  checkNotRevoked(gate.feed.isRevokedAfter(grant, grant.incarnation, grant.position));
  const app = findApp(grant, gate.apps());
  const lease = isLaterPath(grant)
    ? TunnelLease.following(findTunnel(grant, gate.openTunnels()).lease, grant)
    : firstLease(grant, gate);
  gate.usedGrants.use(grant, requireTime(gate.nowMs()));
  return { grant, app, lease };
}

/** True for a grant that takes a tunnel up again, false for one that opens it. */
export function isLaterPath(grant: Pick<Grant, 'generation'>): boolean {
  return grant.generation > 1;
}

function firstLease(grant: VerifiedGrant<'connector'>, gate: Gate): TunnelLease {
  checkRoom(grant, gate.openTunnels());
  return new TunnelLease(grant, gate.nowMs);
}

/**
 * What is asked once more when the client has proved the tunnel, which took time. Throws ERR_GRANT_REVOKED,
 * ERR_TUNNEL_RESUME_REFUSED, or ERR_TUNNEL_LEASE_EXPIRED; answers the tunnel and the lease to go on with.
 */
export function admitPath<T extends KnownTunnel>(
  { grant }: Admission,
  gate: Pick<Gate, 'feed'>,
  tunnels: TunnelCounts<T>,
): { readonly tunnel: T; readonly lease: TunnelLease } {
  checkNotRevoked(gate.feed.isRevokedAfter(grant, grant.incarnation, grant.position));
  const tunnel = findTunnel(grant, tunnels);
  return { tunnel, lease: TunnelLease.following(tunnel.lease, grant) };
}

/** Control time, or ERR_RELAY_UNAVAILABLE: without it no deadline can be believed. */
export function requireTime(nowMs: number | undefined): number {
  if (nowMs === undefined) throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'time_unknown' });
  return nowMs;
}

/** Throws ERR_GRANT_MISMATCH unless the grant is for a path, of a kind that there is, of the tunnel that the relay assigned. */
export function checkTunnel(
  grant: Pick<Grant, 'tunnel' | 'generation' | 'version'>,
  assigned: TunnelId,
): void {
  if (grant.tunnel !== assigned) {
    throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'tunnel_mismatch' });
  }
  // The first version's tunnels have one path.
  if (grant.generation < 1 || (grant.version < 2 && grant.generation !== 1)) {
    throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'generation_unknown' });
  }
}

/**
 * The tunnel of which the grant is for another path: kept here, of the same device, user and app, and on an earlier path.
 * Throws ERR_TUNNEL_RESUME_REFUSED.
 */
export function findTunnel<T extends KnownTunnel>(
  grant: VerifiedGrant<'connector'>,
  tunnels: TunnelCounts<T>,
): T {
  const tunnel = tunnels.find(grant.tunnel);
  const reason = tunnel?.isResumable !== true ? 'tunnel_unknown' : refusalOf(grant, tunnel.grant);
  if (tunnel && reason === undefined) return tunnel;
  throw new ZtnaError('ERR_TUNNEL_RESUME_REFUSED', { reason: reason ?? 'tunnel_unknown' });
}

function refusalOf(grant: Grant, present: Grant): string | undefined {
  if (grant.device !== present.device || grant.deviceKey !== present.deviceKey) {
    return 'device_other';
  }
  if (grant.user !== present.user) return 'user_other';
  if (grant.app !== present.app) return 'app_other';
  return grant.generation > present.generation ? undefined : 'generation_old';
}

/** Throws ERR_RELAY_UNAVAILABLE when the log did not reach the grant's position in time. */
export function checkLogComplete(isComplete: boolean): void {
  if (!isComplete) throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'log_behind' });
}

/** Throws ERR_GRANT_REVOKED for a log entry later than the grant about one of its subjects. */
export function checkNotRevoked(entry: RevocationEntry | undefined): void {
  if (entry) throw new ZtnaError('ERR_GRANT_REVOKED', { reason: entry.reason });
}

/** The app of our own map that the grant is for. Throws ERR_GRANT_MISMATCH. */
export function findApp(grant: Pick<Grant, 'app'>, apps: ReadonlyMap<AppId, ServedApp>): ServedApp {
  const app = apps.get(grant.app);
  if (!app) throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'app_not_served' });
  return app;
}

/** Throws ERR_GRANT_USED for a tunnel that is open, ERR_LIMIT_TUNNELS when there is no room for another. */
export function checkRoom(grant: Pick<Grant, 'device' | 'tunnel'>, open: TunnelCounts): void {
  if (open.find(grant.tunnel)) throw new ZtnaError('ERR_GRANT_USED', { reason: 'tunnel_open' });
  if (open.total >= maxTunnels) {
    throw new ZtnaError('ERR_LIMIT_TUNNELS', { reason: 'tunnels_full' });
  }
  if (open.ofDevice(grant.device) >= maxTunnelsPerDevice) {
    throw new ZtnaError('ERR_LIMIT_TUNNELS', { reason: 'device_tunnels_full' });
  }
}

function verifyNow(
  client: Pick<ProvedClient, 'grantStatement' | 'peerStatic'>,
  gate: Gate,
): VerifiedGrant<'connector'> {
  return verifyGrantAtConnector(client.grantStatement, {
    bundle: gate.bundle(),
    connector: gate.connector,
    instance: gate.instance,
    peerStatic: client.peerStatic,
    nowMs: requireTime(gate.nowMs()),
  });
}
