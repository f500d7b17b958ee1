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

/** How the nodes' counts settled. */
export interface SettledCounts {
  readonly isExact: boolean;
  readonly ms: number;
  /** The last counts in words. */
  readonly told: string;
}

/** Waits until every node counts exactly `expected` tunnels, for as long as the dust may take to settle. */
export async function settleCounts({ fleet }: Rig, expected: number): Promise<SettledCounts> {
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
  return {
    isExact: settled === true,
    ms: Date.now() - startedAtMs,
    told: settled ? `${expected} on each` : `${expected} expected: ${told.join(', ')}`,
  };
}

/** Judges that every node counts exactly `expected` tunnels within 60 s. */
export async function checkCounts(run: Run, rig: Rig, expected: number): Promise<void> {
  const { isExact, ms, told } = await settleCounts(rig, expected);
  const seconds = (ms / 1_000).toFixed(1);
  run.check('exact tunnel count on every node ≤ 60 s', `${told} after ${seconds} s`, isExact);
}
