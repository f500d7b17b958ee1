import { setTimeout as delay } from 'node:timers/promises';
import { missingServer } from '../../support/postgresql.ts';
import { Crowd } from '../crowd.ts';
import { eventually } from '../patience.ts';
import { checkCounts } from '../counts.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';
import { faultsOf, longestGapMs, type FlowOutcome } from '../traffic.ts';

/** Three relays on one database are restarted one after the other, as for an upgrade, while applications talk. */
export const rollingRestart: Scenario = {
  name: 'rolling-restart',
  isPatient: true,
  missing: missingServer,
  run: (run) =>
    withRig(
      run,
      { relays: ['full', 'joined', 'joined'], connectors: 2, onPostgres: true },
      async (rig) => {
        const { fleet, traffic } = rig;
        const size = run.isQuick ? { machines: 2, each: 20 } : { machines: 4, each: 50 };
        const clients = size.machines * size.each;
        const crowd = await Crowd.open(fleet, size, (line) => run.say(line));
        try {
          const [at] = crowd.machines;
          if (!at) throw new Error('there is no machine');
          const flows: number[] = [];
          for (const port of crowd.ports)
            flows.push(await traffic.open(at.place, port, { cellBytes: 256, intervalMs: 500 }));
          for (const relay of fleet.relays) {
            const startedAtMs = Date.now();
            const { code } = await relay.program.stop();
            run.say(`${relay.place.name} drained in ${Date.now() - startedAtMs} ms, exit ${code}`);
            await fleet.startRelay(relay);
            // An operator waits until the connectors are linked to it again.
            await delay(run.isQuick ? 3_000 : 10_000);
          }
          await eventually(
            async () => ((await crowd.openCount()) === clients ? true : undefined),
            30_000,
            500,
          );
          await checkCounts(run, rig, clients);
          for (const flow of flows) await traffic.stopFlow(flow);
          const outcomes: FlowOutcome[] = [];
          for (const flow of flows) outcomes.push(await traffic.outcome(flow, 20_000));
          const faults = outcomes.flatMap(faultsOf);
          run.check(
            '0 lost',
            faults[0] ?? `${outcomes.length} of ${clients} whole`,
            faults.length === 0,
          );
          const resets = outcomes.filter(
            ({ client, app }) => client.end !== 'clean' || app?.end !== 'clean',
          );
          run.check('0 resets', resets.length, resets.length === 0);
          run.checkTime(
            'longest pause ≤ 5 s',
            Math.max(...outcomes.map((outcome) => longestGapMs(outcome))),
            5_000,
          );
        } finally {
          await crowd.kill();
        }
      },
    ),
};
