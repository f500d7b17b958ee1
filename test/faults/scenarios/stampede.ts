import { setTimeout as delay } from 'node:timers/promises';
import type { ClientReport } from '../clients-worker.ts';
import { Crowd } from '../crowd.ts';
import type { Fleet } from '../fleet.ts';
import { eventually } from '../patience.ts';
import { findChild } from '../program-tree.ts';
import { LoadWatch } from '../relay-load.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';

/** Every client loses the only relay at once: it is killed, and started again. All are behind one address. */
export const stampede: Scenario = {
  name: 'stampede',
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 2 }, async ({ fleet }) => {
      const usual = run.isQuick ? { clients: 100, processes: 2 } : { clients: 2_000, processes: 4 };
      const { clients = usual.clients } = run;
      const size = { ...usual, clients };
      const crowd = await Crowd.openMany(fleet, size, (line) => run.say(line));
      const load = watchLoad(fleet, crowd);
      try {
        await delay(1_000);
        const before = await crowd.openCount();
        run.check(`${clients} clients are connected`, before, before === clients);
        await fleet.killRelay(fleet.first);
        const lostAtMs = Date.now();
        await fleet.startRelay(fleet.first);
        run.say(`the relay is up again after ${Date.now() - lostAtMs} ms`);
        const isBack = ({ answeredAtMs, error }: ClientReport): boolean =>
          error === null && answeredAtMs > lostAtMs;
        const isSettled = (report: ClientReport): boolean =>
          report.error !== null || isBack(report);
        await eventually(
          async () => {
            const reports = await crowd.reports();
            return reports.every(isSettled) ? true : undefined;
          },
          120_000,
          1_000,
        );
        run.say(load.cpuSplit);
        const reports = await crowd.reports();
        const back = reports.filter(isBack);
        const errors = new Map<string, number>();
        for (const { error } of reports)
          if (error !== null) errors.set(error, (errors.get(error) ?? 0) + 1);
        for (const [error, count] of errors) run.say(`${count} × ${error}`);
        run.check(`all ${clients} back`, back.length, back.length === clients);
        const lastMs =
          back.length === clients
            ? Math.max(...back.map(({ answeredAtMs }) => answeredAtMs)) - lostAtMs
            : Number.POSITIVE_INFINITY;
        run.checkTime('all back ≤ 30 s', lastMs, 30_000);
        const spread = back.map(({ answeredAtMs }) =>
          Math.floor((answeredAtMs - lostAtMs) / 1_000),
        );
        const bySecond = Array.from(
          { length: Math.max(0, ...spread) + 1 },
          (_, second) => spread.filter((at) => at === second).length,
        );
        run.say(`back in each second: ${bySecond.join(' ')}`);
        const { peakPerSecond, total } = load;
        run.say(`${total} connections at the relay, at most ${peakPerSecond} in one second`);
        // A herd of clients that all dialled at once, again and again, would come to several times its size.
        if (!run.isQuick) {
          const most = clients * 1.5;
          run.check(
            'no thundering herd: connections a second',
            peakPerSecond,
            back.length > 0 && peakPerSecond <= most,
          );
        }
        const counted = await eventually(
          async () => {
            const told = await countTunnels(fleet);
            return Object.values(told).every((count) => count === clients) ? told : undefined;
          },
          60_000,
          500,
        );
        const told = Object.entries(counted ?? (await countTunnels(fleet)));
        const inWords = told.map(([node, count]) => `${node} ${count}`).join(', ');
        run.check('exact tunnel count on every node ≤ 60 s', inWords, counted !== undefined);
      } finally {
        load.stop();
        await crowd.kill();
      }
    }),
};

async function countTunnels(fleet: Fleet): Promise<Record<string, number>> {
  let atConnectors = 0;
  for (const connector of fleet.connectors)
    atConnectors += Number((await fleet.connectorStatus(connector))['tunnels']);
  const open = await fleet.metric('ztna_tunnels{state="open"}');
  return { 'control plane': open, 'connectors together': atConnectors };
}

function watchLoad(fleet: Fleet, crowd: Crowd): LoadWatch {
  const { first } = fleet;
  return new LoadWatch(() => first.program.child.pid, {
    'control plane': () => [findChild(first.program, 'control-plane/main')],
    'data plane': () => [findChild(first.program, 'data-plane/main')],
    connectors: () => fleet.connectors.map(({ program }) => program.child.pid),
    clients: () => crowd.pids,
  });
}
