import { setTimeout as delay } from 'node:timers/promises';
import { missingServer } from '../../support/postgresql.ts';
import { settleCounts } from '../counts.ts';
import { Crowd } from '../crowd.ts';
import { pickAttack } from '../nemesis.ts';
import { eventually } from '../patience.ts';
import { withRig, type Rig } from '../rig.ts';
import type { Run, Scenario } from '../scenario.ts';
import { faultsOf, type FlowOutcome } from '../traffic.ts';

/** The applications: one flow through each client's port, opened anew when it was allowed to die. */
class Applications {
  readonly violations: string[] = [];
  resets = 0;
  bytes = 0;
  readonly #rig: Rig;
  readonly #crowd: Crowd;
  readonly #flows = new Map<number, number>(); // by port

  constructor(rig: Rig, crowd: Crowd) {
    this.#rig = rig;
    this.#crowd = crowd;
  }

  /** Has every port carry a flow. */
  async open(): Promise<void> {
    const [machine] = this.#crowd.machines;
    if (!machine) return;
    for (const port of this.#crowd.ports) {
      if (this.#flows.has(port)) continue;
      const spec = { cellBytes: 2_048, intervalMs: 100 };
      this.#flows.set(port, await this.#rig.traffic.open(machine.place, port, spec));
    }
  }

  /** Looks at every flow. One that was reset counts as violation unless a connector has died since the last look. */
  async look(mayReset: boolean): Promise<void> {
    const { traffic } = this.#rig;
    const [client, app] = [await traffic.atClients(), await traffic.atApp()];
    for (const [port, flow] of this.#flows) {
      const [near, far] = [client.get(flow), app.get(flow)];
      const ends = [near, far].filter((end) => end !== undefined);
      for (const { violation } of ends) if (violation !== null) this.violations.push(violation);
      if (ends.every(({ end }) => end === 'open')) continue;
      this.#flows.delete(port);
      this.resets++;
      const told = `client ${near?.end ?? 'never opened'}, app ${far?.end ?? 'never reached'}`;
      // The kernel tells the app an end of file for a connector that was killed; the client must be told the truth.
      const isHonest = (near?.end === 'reset' || near?.end === 'open') && far?.end !== 'clean';
      if (!mayReset) this.violations.push(`flow ${flow} broke with all connectors alive: ${told}`);
      else if (!isHonest) this.violations.push(`flow ${flow} ended as if it were whole: ${told}`);
    }
  }

  async finish(): Promise<void> {
    const { traffic } = this.#rig;
    for (const flow of this.#flows.values()) await traffic.stopFlow(flow);
    const outcomes: FlowOutcome[] = [];
    for (const flow of this.#flows.values()) outcomes.push(await traffic.outcome(flow, 20_000));
    this.violations.push(...outcomes.flatMap(faultsOf));
    for (const { app } of outcomes) this.bytes += app?.receivedBytes ?? 0;
  }
}

/** Why clients have ended that nobody has stopped. */
async function gaveUp(crowd: Crowd): Promise<string[]> {
  return (await crowd.reports()).flatMap(({ error }) => error ?? []);
}

async function attackUntil(run: Run, rig: Rig, crowd: Crowd, endAtMs: number): Promise<void> {
  const applications = new Applications(rig, crowd);
  const wrong: string[] = [];
  let slowestMs = 0;
  let rounds = 0;
  do {
    rounds++;
    const lost = await gaveUp(crowd);
    if (lost.length > 0) {
      for (const error of lost) run.say(`a client gave up: ${error}`);
      break;
    }
    await applications.open();
    const attacks = Array.from({ length: Math.ceil(run.random.between(0, 3)) }, () =>
      pickAttack(rig, run.random),
    );
    let mayReset = false;
    for (const attack of attacks) {
      run.say(`round ${rounds}: ${attack.what}`);
      mayReset ||= attack.mayReset;
      await attack.run();
      await delay(run.random.between(0, 2_000));
    }
    await eventually(
      async () => ((await crowd.openCount()) === crowd.ports.length ? true : undefined),
      60_000,
      500,
    );
    const settled = await settleCounts(rig, crowd.ports.length);
    if (!settled.isExact) wrong.push(`round ${rounds}: ${settled.told}`);
    slowestMs = Math.max(slowestMs, settled.ms);
    await applications.look(mayReset);
  } while (Date.now() < endAtMs);
  run.check(
    'exact tunnel count on every node ≤ 60 s after each round',
    wrong[0] ?? `${rounds} rounds, slowest ${(slowestMs / 1_000).toFixed(1)} s`,
    wrong.length === 0,
  );
  await applications.finish();
  const { violations, bytes, resets } = applications;
  for (const violation of violations) run.say(violation);
  run.check(
    'nothing lost or reordered, no reset while connectors live',
    violations[0] ?? `${bytes} bytes up, ${resets} flows died with their connector`,
    violations.length === 0,
  );
  const [lost] = await gaveUp(crowd);
  run.check('no client gave up', lost ?? 'none', lost === undefined);
  const verified = await rig.fleet.tryAdmin(['audit', 'verify']);
  run.check('audit chain verifies', verified.stderr.trim(), verified.code === 0);
}

/** Anything may break, again and again; after each round everything must be counted exactly. */
export const chaos: Scenario = {
  name: 'chaos',
  missing: missingServer,
  run: (run) =>
    withRig(
      run,
      { relays: ['full', 'joined', 'data-plane'], connectors: 2, onPostgres: true },
      async (rig) => {
        const minutes = run.minutes ?? (run.isQuick ? 1 : 10);
        const size = run.isQuick ? { machines: 2, each: 5 } : { machines: 4, each: 25 };
        const crowd = await Crowd.open(rig.fleet, size, (line) => run.say(line));
        try {
          await attackUntil(run, rig, crowd, Date.now() + minutes * 60_000);
        } finally {
          await crowd.kill();
        }
      },
    ),
};
