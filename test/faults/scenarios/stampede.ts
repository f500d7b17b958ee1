import { setTimeout as delay } from 'node:timers/promises';
import type { ClientReport } from '../clients-worker.ts';
import { Crowd } from '../crowd.ts';
import { eventually } from '../patience.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';

/** Every client loses the only relay at once: it is killed, and started again. */
export const stampede: Scenario = {
  name: 'stampede',
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 1 }, async ({ fleet }) => {
      const size = run.isQuick
        ? { machines: 4, each: 25, places: 2 }
        : { machines: 50, each: 40, places: 4 };
      const clients = size.machines * size.each;
      const crowd = await Crowd.open(fleet, size, (line) => run.say(line));
      try {
        await delay(1_000);
        const before = await crowd.openCount();
        run.check(`${clients} clients are connected`, before, before === clients);
        await fleet.killRelay(fleet.first);
        const lostAtMs = Date.now();
        await fleet.startRelay(fleet.first);
        run.say(`the relay is up again after ${Date.now() - lostAtMs} ms`);
        const isBack = ({ event, atMs, error }: ClientReport): boolean =>
          error === null && event !== 'detached' && event !== 'closed' && atMs > lostAtMs;
        const isSettled = (report: ClientReport): boolean =>
          report.error !== null || isBack(report);
        await eventually(
          async () => ((await crowd.reports()).every(isSettled) ? true : undefined),
          120_000,
          500,
        );
        const reports = await crowd.reports();
        const back = reports.filter(isBack);
        for (const { error } of reports) if (error !== null) run.say(error);
        run.check(`all ${clients} back`, back.length, back.length === clients);
        const lastMs =
          back.length === clients
            ? Math.max(...back.map(({ atMs }) => atMs)) - lostAtMs
            : Number.POSITIVE_INFINITY;
        run.checkTime('all back ≤ 30 s', lastMs, 30_000);
        const spread = back.map(({ atMs }) => Math.floor((atMs - lostAtMs) / 1_000));
        const busiest = Math.max(
          0,
          ...spread.map((at) => spread.filter((other) => other === at).length),
        );
        run.say(`most in one second: ${busiest}`);
        // A herd comes back in one second; jitter spreads it.
        const mostAtOnce = Math.max(clients * 0.6, 50);
        if (!run.isQuick)
          run.check(
            'no thundering herd: at most 60 % within one second',
            busiest,
            busiest <= mostAtOnce,
          );
        const counted = await eventually(
          async () => {
            const count = await fleet.metric('ztna_tunnels{state="open"}');
            return count === clients ? count : undefined;
          },
          60_000,
          500,
        );
        run.check(
          'exact tunnel count at the control plane',
          counted ?? (await fleet.metric('ztna_tunnels{state="open"}')),
          counted === clients,
        );
      } finally {
        await crowd.kill();
      }
    }),
};
