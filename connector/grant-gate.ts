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
 *   again ─▶ not revoked ─▶ app ours ─▶ room ─▶ lease live ─▶ used once
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

export interface TunnelCounts {
  readonly total: number;
  ofDevice(device: string): number;
  has(tunnel: TunnelId): boolean;
}

/** What a client that passed may do. */
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
  checkRoom(grant, gate.openTunnels());
  const lease = new TunnelLease(grant, gate.nowMs);
  gate.usedGrants.use(grant, requireTime(gate.nowMs()));
  return { grant, app, lease };
}

/** Control time, or ERR_RELAY_UNAVAILABLE: without it no deadline can be believed. */
export function requireTime(nowMs: number | undefined): number {
  if (nowMs === undefined) throw new ZtnaError('ERR_RELAY_UNAVAILABLE', { reason: 'time_unknown' });
  return nowMs;
}

/** Throws ERR_GRANT_MISMATCH unless the grant opens the first path of the tunnel that the relay assigned. */
export function checkTunnel(grant: Pick<Grant, 'tunnel' | 'generation'>, assigned: TunnelId): void {
  if (grant.tunnel !== assigned) {
    throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'tunnel_mismatch' });
  }
  // A later path resumes a tunnel whose ends were kept; this connector keeps none.
  if (grant.generation !== 1) {
    throw new ZtnaError('ERR_GRANT_MISMATCH', { reason: 'generation_unknown' });
  }
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
  if (open.has(grant.tunnel)) throw new ZtnaError('ERR_GRANT_USED', { reason: 'tunnel_open' });
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
