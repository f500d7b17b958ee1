import { setTimeout as delay } from 'node:timers/promises';
import { LiveFlow } from '../live-flow.ts';
import { missingNetwork } from '../network.ts';
import { eventually } from '../patience.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';

const cuts = ['relay to connector', 'connector to relay', 'both ways'] as const;

/** When a connector lost its channel, by its own log: to ask it takes a program, and that as long as the machine likes. */
function lostAtMs(lines: readonly string[]): number | undefined {
  const line = lines.find((each) => each.includes('"event":"channel_lost"'));
  return line === undefined ? undefined : Date.parse((JSON.parse(line) as { time: string }).time);
}

/** Packets between relay and connector vanish, without a word, one way and both. */
export const partition: Scenario = {
  name: 'partition',
  isPatient: true,
  missing: missingNetwork,
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 1 }, async (rig) => {
      const { fleet, network } = rig;
      const live = await LiveFlow.open(rig);
      const relay = fleet.first.place;
      const [connector] = fleet.connectors;
      if (!connector) throw new Error('there is no connector');
      for (const cut of cuts) {
        const from = live.program.lines.length;
        const loggedBefore = connector.program.errorLines.length;
        const cutAtMs = Date.now();
        const heal =
          cut === 'both ways'
            ? await network.part(relay, connector.place)
            : cut === 'relay to connector'
              ? await network.cut(relay, connector.place)
              : await network.cut(connector.place, relay);
        const [foundAtMs = Number.POSITIVE_INFINITY, lostMs] = await Promise.all([
          eventually(() => lostAtMs(connector.program.errorLines.slice(loggedBefore)), 30_000),
          live.untilLost(from, 30_000),
        ]);
        run.checkTime(`${cut}: connector finds its relay dead ≤ 10 s`, foundAtMs - cutAtMs, 10_000);
        run.checkTime(`${cut}: the client is told ≤ 15 s`, lostMs, 15_000);
        await delay(run.isQuick ? 0 : 15_000);
        await heal();
        run.checkTime(
          `${cut}: moves again ≤ 10 s after it is mended`,
          await live.untilMoves(),
          10_000,
        );
        if ((await rig.traffic.atClients()).get(live.flow)?.end !== 'open') break;
      }
      await live.checkWhole(run);
    }),
};
