import type { FlowSpec } from './flow.ts';
import type { Machine } from './fleet.ts';
import { eventually, millisecondsUntil } from './patience.ts';
import type { Rig } from './rig.ts';
import type { Run } from './scenario.ts';
import { faultsOf, longestGapMs, type FlowOutcome } from './traffic.ts';
import type { RunningProgram } from '../support/program.ts';

/** One application that talks to the app through `ztna connect` all the time. */
export class LiveFlow {
  readonly machine: Machine;
  readonly program: RunningProgram;
  readonly port: number;
  readonly flow: number;
  readonly #rig: Rig;

  private constructor(
    rig: Rig,
    machine: Machine,
    connected: { program: RunningProgram; port: number },
    flow: number,
  ) {
    this.#rig = rig;
    this.machine = machine;
    this.program = connected.program;
    this.port = connected.port;
    this.flow = flow;
  }

  static async open(rig: Rig, spec: Partial<FlowSpec> = {}): Promise<LiveFlow> {
    const machine = await rig.fleet.enrol();
    const connected = await rig.fleet.connect(machine);
    const flow = await rig.traffic.open(machine.place, connected.port, spec);
    const live = new LiveFlow(rig, machine, connected, flow);
    if (!Number.isFinite(await live.untilMoves())) throw new Error('the flow did not begin');
    return live;
  }

  /** When the app last got something of this flow, in milliseconds of wall clock. */
  async lastAtAppMs(): Promise<number> {
    return (await this.#rig.traffic.atApp()).get(this.flow)?.lastAtMs ?? 0;
  }

  /** Milliseconds from now until both ends get something that was not there yet; Infinity when that cannot be any more. */
  async untilMoves(withinMs = 60_000): Promise<number> {
    const startedAtMs = Date.now();
    const sinceMs = startedAtMs + 50;
    const { traffic } = this.#rig;
    const isOver = await eventually(async () => {
      const ends = [await traffic.atApp(), await traffic.atClients()].map((at) =>
        at.get(this.flow),
      );
      if (ends.every((end) => (end?.lastAtMs ?? 0) > sinceMs)) return 'moves';
      return ends.some((end) => end !== undefined && end.end !== 'open') ? 'broken' : undefined;
    }, withinMs);
    return isOver === 'moves' ? Date.now() - startedAtMs : Number.POSITIVE_INFINITY;
  }

  /** Milliseconds from now until a state is told in which nothing moves; `from` is a count of lines seen before. */
  async untilLost(from: number, withinMs: number): Promise<number> {
    const lost = /"event":"(detached|closed|suspended)"/;
    return millisecondsUntil(
      () => this.program.lines.slice(from).some((line) => lost.test(line)),
      withinMs,
    );
  }

  /** Ends the flow and judges that every byte of it arrived, in order, both ways. */
  async checkWhole(
    run: Run,
    bound = 'nothing lost, duplicated or reordered',
  ): Promise<FlowOutcome> {
    const { traffic } = this.#rig;
    await traffic.stopFlow(this.flow);
    const outcome = await traffic.outcome(this.flow);
    const faults = faultsOf(outcome);
    if (faults.length > 0) run.say(`ztna connect said:\n${this.program.transcript()}`);
    const pauseMs = longestGapMs(outcome);
    const bytes = outcome.client.receivedBytes + (outcome.app?.receivedBytes ?? 0);
    run.check(
      bound,
      faults[0] ?? `${bytes} bytes, longest pause ${pauseMs} ms`,
      faults.length === 0,
    );
    return outcome;
  }
}
