import { eventually } from './patience.ts';
import type { Fleet } from './fleet.ts';
import type { Rig } from './rig.ts';
import type { Run } from './scenario.ts';

/** What each node says about how many tunnels there are. */
async function tunnelCounts(fleet: Fleet): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const relay of fleet.relays) {
    if (relay.kind === 'data-plane') continue;
    counts[`control plane of ${relay.place.name}`] = (await fleet.list('tunnel', relay)).filter(
      ({ state }) => state !== 'closed',
    ).length;
  }
  let atConnectors = 0;
  for (const connector of fleet.connectors)
    atConnectors += Number((await fleet.connectorStatus(connector))['tunnels']);
  counts['connectors together'] = atConnectors;
  return counts;
}

/** Judges that every node counts exactly `expected` tunnels, waiting for that as long as the dust may take to settle. */
export async function checkCounts(
  run: Run,
  { fleet }: Rig,
  expected: number,
  bound = 'exact tunnel count on every node',
): Promise<void> {
  const startedAtMs = Date.now();
  let counts: Record<string, number> = {};
  const settled = await eventually(
    async () => {
      counts = await tunnelCounts(fleet);
      return Object.values(counts).every((count) => count === expected) ? true : undefined;
    },
    60_000,
    500,
  );
  const told = Object.entries(counts).map(([node, count]) => `${node} ${count}`);
  const seconds = ((Date.now() - startedAtMs) / 1_000).toFixed(1);
  run.check(
    `${bound} ≤ 60 s`,
    settled ? `${expected} on each after ${seconds} s` : `${expected} expected: ${told.join(', ')}`,
    settled === true,
  );
}
