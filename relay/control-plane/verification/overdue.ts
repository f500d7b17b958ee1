import { isDeviceReason } from '../../../protocol/index.ts';
import { endTunnels, revokeTunnels, type Ending } from '../access/end-tunnels.ts';
import { holdMarginMs } from '../limits.ts';
import { isOwn } from '../live/ownership.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';

const holdExpired: Ending = { reason: 'hold_expired', code: 'ERR_TUNNEL_PATH_LOST' };
const notMended: Ending = { reason: 'suspension_over', code: 'ERR_TUNNEL_REVOKED' };
const stillUnhealthy: Ending = { reason: 'suspension_over', code: 'ERR_POSTURE_UNHEALTHY' };
/** Not lost access: whoever is told asks for another connector. */
export const connectorLost: Ending = { reason: 'connector_lost', code: 'ERR_CONNECTOR_OFFLINE' };

/**
 * Ends tunnels that nobody should wait for any longer: those detached for longer than they are held, and those that
 * have no path, or want another, while their connector has been away for too long.
 */
export async function endOverdue(services: Services, nowMs: number): Promise<void> {
  const { store, tunnels } = services;
  const expired: LiveTunnel[] = [];
  const lost: LiveTunnel[] = [];
  for (const tunnel of tunnels.all()) {
    if (!isOwn(services, tunnel)) continue;
    if (isHoldOver(tunnel, nowMs)) expired.push(tunnel);
    else if (isConnectorLost(services, tunnel, nowMs)) lost.push(tunnel);
  }
  if (expired.length > 0) {
    await store.write(async (tx) => {
      for (const [ending, group] of Map.groupBy(expired.filter(isDetached), endingOf)) {
        await revokeTunnels(services, tx, group, ending);
      }
    });
  }
  if (lost.length > 0) {
    const stillLost = (tunnel: LiveTunnel) => isConnectorLost(services, tunnel, nowMs);
    await store.write((tx) => endTunnels(services, tx, lost.filter(stillLost), connectorLost));
  }
}

function endingOf({ suspension }: LiveTunnel): Ending {
  if (!suspension) return holdExpired;
  return isDeviceReason(suspension.reason) ? stillUnhealthy : notMended;
}

function isDetached(tunnel: LiveTunnel): boolean {
  return tunnel.state === 'detached';
}

function isHoldOver(tunnel: LiveTunnel, nowMs: number): boolean {
  const { detachedAtMs, holdMs } = tunnel;
  return isDetached(tunnel) && nowMs >= (detachedAtMs ?? nowMs) + holdMs + holdMarginMs;
}

function isConnectorLost(
  { peers, absences }: Services,
  tunnel: LiveTunnel,
  nowMs: number,
): boolean {
  const isWaiting = isDetached(tunnel) || (tunnel.isAwaited && tunnel.state !== 'closed');
  if (!isWaiting || peers.connectors.has(tunnel.connector)) return false;
  if (peers.relays.size === 0) return false; // no connector could be here
  return nowMs >= absences.untilMs(tunnel.connector);
}
