import { verificationOf } from '../settings.ts';
import type { Services } from '../services.ts';
import type { LiveTunnel } from './tunnel-index.ts';

/**
 * Takes over the tunnels that the store knows, under this process's fencing number: restarting the control plane
 * cuts nobody. Each is verified as soon as its connector is back. Closed ones are known for as long as their grant
 * could be used, so that their ends hear what voids it.
 */
export async function loadTunnels(services: Services): Promise<void> {
  const { store, clock, tunnels, schedule, settings, sequence } = services;
  const nowMs = clock.nowMs();
  const rows = await store.db
    .selectFrom('tunnels')
    .leftJoin('apps', 'apps.id', 'tunnels.appId')
    .leftJoin('users', 'users.id', 'tunnels.userId')
    .leftJoin('decisions', 'decisions.id', 'tunnels.decisionId')
    .selectAll('tunnels')
    .select(['apps.name as appName', 'users.name as userName'])
    .select(['decisions.inputDigest', 'decisions.policyVersion', 'decisions.inputsJson'])
    .where((eb) =>
      eb.or([
        eb('tunnels.state', 'in', ['granted', 'open', 'detached']),
        eb('tunnels.grantExpiresAtMs', '>', nowMs),
      ]),
    )
    .execute();
  for (const row of rows) {
    const appName = row.appName ?? row.appId;
    const { intervalMs } = verificationOf(settings, appName);
    // The newest lease that was sent is not written down; none reaches further than this.
    const untilMs = Math.max(row.untilMs, nowMs + maxLeaseMs);
    const tunnel: LiveTunnel = {
      id: row.id,
      user: row.userId,
      session: row.sessionId,
      device: row.deviceId,
      app: row.appId,
      appName,
      userName: row.userName ?? row.userId,
      connector: row.connectorId,
      instance: row.instance,
      intervalMs,
      version: row.version,
      holdMs: row.holdMs,
      generation: row.generation,
      pathGeneration: 0, // its connector tells
      relay: row.relayId,
      keptRelay: row.relayId,
      grantExpiresAtMs: row.grantExpiresAtMs,
      address: addressIn(row.inputsJson),
      decision: row.decisionId,
      policyVersion: row.policyVersion ?? 0,
      state: row.state,
      detachedAtMs: row.detachedAtMs,
      isAwaited: false,
      untilMs,
      inputDigest: row.inputDigest ?? '',
      confirmations: 0,
    };
    tunnels.add(tunnel);
    if (tunnel.state === 'closed') continue;
    schedule.set(tunnel.id, intervalMs, Infinity, nowMs);
    schedule.hasten(tunnel.id, nowMs);
  }
  if (rows.length === 0) return;
  await store.write((tx) =>
    tx
      .updateTable('tunnels')
      .set({ fencing: sequence.fencing })
      .where('state', 'in', ['granted', 'open', 'detached'])
      .execute(),
  );
}

/** The longest lease there is: three of the longest intervals. */
const maxLeaseMs = 60_000;

/** Where the agent was when the stored decision was made; it counts until its channel is back. */
function addressIn(inputsJson: string | null): string {
  const inputs = JSON.parse(inputsJson ?? '{}') as {
    context?: { network?: { address?: unknown } };
  };
  const address = inputs.context?.network?.address;
  return typeof address === 'string' ? address : 'unknown';
}
