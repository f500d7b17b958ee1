import { setTimeout as delay } from 'node:timers/promises';
import { missingServer } from '../../support/postgresql.ts';
import type { FlowEnd } from '../flow.ts';
import type { Fleet, Relay } from '../fleet.ts';
import { findChild, receivedBytes, signalProcess } from '../program-tree.ts';
import { withRig, type Rig } from '../rig.ts';
import type { Run, Scenario } from '../scenario.ts';
import { faultsOf, longestGapMs, type FlowOutcome, type Traffic } from '../traffic.ts';

const mebibyte = 2 ** 20;
const cellBytes = 65_536;

/** Knows which relay carries the load: the one that has received the most for the last moment. */
class LoadWatch {
  busiest: Relay;
  readonly #relays: readonly Relay[];
  readonly #timer: NodeJS.Timeout;
  #used: readonly (number | undefined)[];

  constructor(fleet: Fleet) {
    this.#relays = fleet.relays;
    this.busiest = fleet.first;
    this.#used = this.#read();
    this.#timer = setInterval(() => {
      const used = this.#read();
      const growth = used.map((bytes, at) => (bytes ?? 0) - (this.#used[at] ?? bytes ?? 0));
      this.#used = used;
      const most = Math.max(...growth);
      if (most >= 65_536) this.busiest = this.#relays[growth.indexOf(most)] ?? this.busiest;
    }, 250);
  }

  #read(): readonly (number | undefined)[] {
    return this.#relays.map(({ program }) => receivedBytes(program));
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** Bytes that have arrived, both ways and at both ends. Throws when a flow has broken. */
async function arrivedBytes(traffic: Traffic): Promise<number> {
  const ends = [...(await traffic.atApp()).values(), ...(await traffic.atClients()).values()];
  const broken = ends.find(({ end, violation }) => violation !== null || isBroken(end));
  if (broken) throw new Error(`flow ${broken.flow}: ${broken.violation ?? broken.end}`);
  return ends.reduce((sum, { receivedBytes }) => sum + receivedBytes, 0);
}

const isBroken = (end: FlowEnd): boolean => end === 'reset' || end === 'truncated';

async function untilArrived(traffic: Traffic, bytes: number, stallMs: number): Promise<void> {
  let last = -1;
  let movedAtMs = Date.now();
  for (;;) {
    const arrived = await arrivedBytes(traffic);
    if (arrived >= bytes) return;
    if (arrived !== last) movedAtMs = Date.now();
    else if (Date.now() - movedAtMs > stallMs)
      throw new Error(`nothing has arrived for ${stallMs} ms, at ${arrived} bytes`);
    last = arrived;
    await delay(50);
  }
}

/** Half of the transfer each way at the same time, with the busiest relay killed at random moments of it. */
async function transferUnderKills(
  run: Run,
  { fleet, traffic }: Rig,
  kill: (relay: Relay) => Promise<void>,
  mostMs: (relay: Relay) => number,
  quick: { readonly kills: number; readonly mib: number },
): Promise<void> {
  const kills = run.rounds ?? (run.isQuick ? quick.kills : 20);
  const bytes = (run.mib ?? (run.isQuick ? quick.mib : 10_240)) * mebibyte;
  const machine = await fleet.enrol();
  const { port } = await fleet.connect(machine);
  const half = { cellBytes, intervalMs: 0 };
  const flows = [
    await traffic.open(machine.place, port, { ...half, upBytes: bytes / 2, downBytes: 1 }),
    await traffic.open(machine.place, port, { ...half, upBytes: 1, downBytes: bytes / 2 }),
  ];
  const moments = Array.from({ length: kills }, () => run.random.between(0.02, 0.95)).sort();
  const killed: { readonly atMs: number; readonly mostMs: number }[] = [];
  const load = new LoadWatch(fleet);
  let stalled: string | undefined;
  try {
    for (const moment of moments) {
      await untilArrived(traffic, moment * bytes, 60_000);
      const relay = load.busiest;
      killed.push({ atMs: Date.now(), mostMs: mostMs(relay) });
      run.say(`kill -9 of ${relay.place.name} at ${Math.round(moment * 100)} %`);
      const killing = kill(relay);
      // Meanwhile only so much that the transfer is not over before the next kill.
      for (const flow of flows) await traffic.pace(flow, 10);
      await killing;
      await delay(1_000); // until it shows who carries the load now
      for (const flow of flows) await traffic.pace(flow, 0);
    }
    await untilArrived(traffic, bytes, 60_000);
  } catch (error) {
    stalled = (error as Error).message;
  } finally {
    load.stop();
  }
  const outcomes: FlowOutcome[] = [];
  for (const flow of flows) outcomes.push(await traffic.outcome(flow, 60_000));
  const faults = outcomes.flatMap(faultsOf);
  if (stalled !== undefined) faults.unshift(stalled);
  const size = `${(bytes / 2 ** 30).toFixed(2)} GiB, ${killed.length} kills`;
  run.check('digests equal', faults[0] ?? `equal: ${size}`, faults.length === 0);
  const resets = outcomes.filter(
    ({ client, app }) => isBroken(client.end) || (app && isBroken(app.end)),
  );
  run.check('0 resets', resets.length, resets.length === 0);
  const isBrokenOff = resets.length > 0 || stalled !== undefined;
  for (const bound of new Set(killed.map((each) => each.mostMs))) {
    const gaps = killed.map(({ atMs, mostMs: most }, at) =>
      most === bound
        ? Math.max(...outcomes.map((each) => longestGapMs(each, atMs, killed[at + 1]?.atMs)))
        : 0,
    );
    const longestMs = isBrokenOff ? Number.POSITIVE_INFINITY : Math.max(...gaps);
    run.checkTime(`longest resume ≤ ${bound / 1_000} s`, longestMs, bound);
  }
}

/** Where another goes on meanwhile, as long as a machine needs at the least; starting would also take this one's processors. */
const downMs = 2_000;

/** What a quick run has of all but one of these. */
const smaller = { kills: 3, mib: 512 };

/** Kills a relay, which is up again after a while. */
async function restart(fleet: Fleet, relay: Relay, forMs = 0): Promise<void> {
  await fleet.killRelay(relay);
  await delay(forMs);
  await fleet.startRelay(relay);
}

export const relayKilledAlone: Scenario = {
  name: 'relay-killed-alone',
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 1 }, (rig) =>
      transferUnderKills(
        run,
        rig,
        (relay) => restart(rig.fleet, relay),
        () => 5_000,
        smaller,
      ),
    ),
};

/** Either of two relays on one database. */
export const relayKilled: Scenario = {
  name: 'relay-killed',
  missing: missingServer,
  run: (run) =>
    withRig(run, { relays: ['full', 'joined'], connectors: 1, onPostgres: true }, (rig) =>
      transferUnderKills(
        run,
        rig,
        (relay) => restart(rig.fleet, relay, downMs),
        () => 1_500,
        {
          kills: 5,
          mib: 2_048,
        },
      ),
    ),
};

/** One that decides nothing beside the one that decides, whose data plane alone is killed. */
export const dataPlaneKilled: Scenario = {
  name: 'data-plane-killed',
  run: (run) =>
    withRig(run, { relays: ['full', 'data-plane'], connectors: 1 }, (rig) =>
      transferUnderKills(
        run,
        rig,
        async (relay) => {
          if (relay.kind === 'data-plane') {
            await restart(rig.fleet, relay, downMs);
            return;
          }
          const pid = findChild(relay.program, 'data-plane/main');
          if (pid !== undefined) signalProcess(pid, 'SIGKILL');
        },
        // Through the one is the only way to the control plane, which must decide before a tunnel resumes.
        ({ kind }) => (kind === 'full' ? 5_000 : 1_500),
        smaller,
      ),
    ),
};
