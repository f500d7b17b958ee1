import type { TunnelId } from '../../../protocol/index.ts';
import { endTunnels } from '../access/end-tunnels.ts';
import { isOwn } from '../live/ownership.ts';
import type { ConnectorPeer } from '../live/peers.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import { noteOpened } from './tunnel-opened.ts';
import { dropTunnel } from './tunnel-reports.ts';

/** Which of its tunnels have no path, and need no lease, a connector says right behind its hello. */
const reportsWithinMs = 1_000;

/** How long after the end of its grant a tunnel may still be missing from a hello that was begun before it opened. */
const newMs = 10_000;

/** Brings store, index and connector to one view of which tunnels there are. */
export async function reconcile(
  services: Services,
  peer: ConnectorPeer,
  reported: readonly TunnelId[],
  known: readonly { readonly tunnel: string; readonly state: string }[],
): Promise<void> {
  const { store, tunnels, schedule, clock } = services;
  const there = new Set<string>(reported);
  const gone = tunnels
    .about('connector', peer.id)
    .filter(
      (tunnel) =>
        tunnel.instance !== peer.instance ||
        (tunnel.state !== 'granted' && !there.has(tunnel.id) && !mayBeNew(services, tunnel)),
    );
  // Closed here but open there: an entry ends it at once, where a missing lease would only in a while.
  const closed = known.filter(
    (row) => row.state === 'closed' || tunnels.get(row.tunnel)?.state === 'closed',
  );
  if (gone.length > 0 || closed.length > 0) {
    await store.write(async (tx) => {
      await endTunnels(services, tx, gone, {
        reason: 'connector_restarted',
        code: 'ERR_CONNECTOR_OFFLINE',
      });
      for (const row of closed) await dropTunnel(services, tx, row.tunnel as TunnelId);
    });
  }
  for (const id of reported) {
    const tunnel = tunnels.get(id);
    if (!tunnel || tunnel.state === 'closed' || tunnel.connector !== peer.id) continue;
    await noteOpened(services, id);
    schedule.hasten(id, clock.nowMs() + reportsWithinMs);
  }
}

/** Opened, on another control plane's word, perhaps after the connector had begun its hello. */
function mayBeNew(services: Services, tunnel: LiveTunnel): boolean {
  return !isOwn(services, tunnel) && services.clock.nowMs() < tunnel.grantExpiresAtMs + newMs;
}
