import { setTimeout as delay } from 'node:timers/promises';
import type { Fleet } from '../fleet.ts';
import { eventually } from '../patience.ts';
import { findChild, signalProcess } from '../program-tree.ts';
import { withRig } from '../rig.ts';
import type { Scenario } from '../scenario.ts';
import { faultsOf, longestGapMs } from '../traffic.ts';

/** Writes users until told to stop, and remembers those that were acknowledged. */
class Writer {
  readonly acknowledged: string[] = [];
  readonly #fleet: Fleet;
  #count = 0;
  #isStopping = false;
  #running: Promise<void>;

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
    this.#running = this.#run();
  }

  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#isStopping) {
      const name = `written-${++this.#count}`;
      try {
        await this.#fleet.command('user.add', { name });
        this.acknowledged.push(name);
        await this.#fleet.command('user.disable', { name });
      } catch {
        await delay(50); // nobody is there
      }
    }
  }
}

/** Records of a chain that verifies; undefined for one that does not. */
async function verifiedRecords(fleet: Fleet): Promise<number | undefined> {
  const { code, stderr } = await fleet.tryAdmin(['audit', 'verify']);
  const records = /(\d+) records/.exec(stderr)?.[1];
  return code === 0 && records !== undefined ? Number(records) : undefined;
}

export const controlPlaneKilled: Scenario = {
  name: 'control-plane-killed',
  run: (run) =>
    withRig(run, { relays: ['full'], connectors: 1 }, async ({ fleet, traffic }) => {
      const kills = run.rounds ?? (run.isQuick ? 5 : 20);
      const machine = await fleet.enrol();
      const { program, port } = await fleet.connect(machine);
      const flow = await traffic.open(machine.place, port, { intervalMs: 20 });
      const writer = new Writer(fleet);
      let position = 0;
      let records = 0;
      let isMonotonic = true;
      let isIntact = true;
      for (let kill = 1; kill <= kills; kill++) {
        await delay(run.random.between(50, 1_500));
        const pid = findChild(fleet.first.program, 'control-plane/main');
        if (pid === undefined || !signalProcess(pid, 'SIGKILL'))
          throw new Error('the control plane process was not found');
        run.say(`kill ${kill}: ${writer.acknowledged.length} rows acknowledged`);
        const seen = await eventually(() => fleet.metric('ztna_revocation_position'), 30_000);
        if (seen === undefined) throw new Error('the control plane did not come back');
        const verified = await verifiedRecords(fleet);
        isIntact &&= verified !== undefined;
        isMonotonic &&= seen >= position && (verified ?? records) >= records;
        position = Math.max(position, seen);
        records = Math.max(records, verified ?? 0);
      }
      await writer.stop();
      const kept = new Set((await fleet.list('user')).map(({ name }) => String(name)));
      const lost = writer.acknowledged.filter((name) => !kept.has(name));
      const acknowledged = writer.acknowledged.length;
      run.check(
        'no acknowledged row lost',
        `${lost.length} of ${acknowledged} lost`,
        lost.length === 0 && acknowledged > kills,
      );
      run.check('audit chain verifies', isIntact ? `${records} records` : 'broken', isIntact);
      run.check('log position never goes back', `at ${position}`, isMonotonic && position > 0);
      await traffic.stopFlow(flow);
      const outcome = await traffic.outcome(flow);
      const faults = faultsOf(outcome);
      run.check(
        'live tunnels keep moving',
        faults[0] ?? 'every byte, in order',
        faults.length === 0,
      );
      run.checkTime('longest pause of a live tunnel ≤ 2 s', longestGapMs(outcome), 2_000);
      await program.stop();
    }),
};
