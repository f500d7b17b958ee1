import { setTimeout as delay } from 'node:timers/promises';
import { missingNetwork } from '../network.ts';
import { cleanLink, type LinkShape } from '../packet-link.ts';
import { eventually, millisecondsUntil } from '../patience.ts';
import { withRig } from '../rig.ts';
import type { Run, Scenario } from '../scenario.ts';
import { faultsOf, type FlowOutcome } from '../traffic.ts';
import type { RunningProgram } from '../../support/program.ts';

interface BadLink {
  readonly name: string;
  readonly shape: LinkShape;
  readonly seconds: number;
  readonly quickSeconds: number;
  /** Nothing gets through at all, so the path must be found dead. */
  readonly isDead?: boolean;
}

const badLinks: readonly BadLink[] = [
  { name: 'loss-30', shape: { delayMs: 0, loss: 0.3 }, seconds: 60, quickSeconds: 8 },
  { name: 'delay-500', shape: { delayMs: 500, jitterMs: 200 }, seconds: 60, quickSeconds: 8 },
  { name: 'rate-64k', shape: { delayMs: 0, rate: 64_000 }, seconds: 60, quickSeconds: 12 },
  {
    name: 'mangled',
    shape: { delayMs: 20, duplicate: 0.01, reorder: 0.01, corrupt: 0.01 },
    seconds: 60,
    quickSeconds: 6,
  },
  {
    name: 'blackhole',
    shape: { delayMs: 0, loss: 1 },
    seconds: 60,
    quickSeconds: 18,
    isDead: true,
  },
];

/** The lease is three times as long. */
const intervalSeconds = 4;

/** The longest that two events of a program were apart, and up to now. */
class EventWatch {
  longestMs = 0;
  #lastAtMs = Date.now();
  #seen: number;
  readonly #timer: NodeJS.Timeout;

  constructor(program: RunningProgram, event: string) {
    const count = (): number =>
      program.lines.filter((line) => line.includes(`"event":"${event}"`)).length;
    this.#seen = count();
    this.#timer = setInterval(() => {
      const now = count();
      this.longestMs = Math.max(this.longestMs, Date.now() - this.#lastAtMs);
      if (now > this.#seen) this.#lastAtMs = Date.now();
      this.#seen = now;
    }, 100);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

const lostEvents = /"event":"(detached|closed|suspended)"/;

async function endure(run: Run, bad: BadLink): Promise<void> {
  const options = {
    relays: ['full'],
    connectors: 1,
    links: { 'client-1': cleanLink },
    relayConfig: { verification: `{ interval: ${intervalSeconds}s }` },
  } as const;
  await withRig(run, options, async ({ network, fleet, traffic }) => {
    const machine = await fleet.enrol();
    const { program, port } = await fleet.connect(machine);
    const small = await traffic.open(machine.place, port, { cellBytes: 256, intervalMs: 200 });
    // As much as the link takes, both ways, beside it.
    const bulk = { cellBytes: 16_384, intervalMs: bad.isDead ? 500 : 0 };
    const large = await traffic.open(machine.place, port, bulk);
    await delay(1_000);
    const linesBefore = program.lines.length;
    network.shape(machine.place, bad.shape);
    const verified = new EventWatch(program, 'verified');
    const seconds = run.isQuick ? bad.quickSeconds : bad.seconds;
    const isLost = (): boolean =>
      program.lines.slice(linesBefore).some((line) => lostEvents.test(line));
    if (bad.isDead) {
      const foundMs = await millisecondsUntil(isLost, seconds * 1_000);
      run.check(
        `${bad.name}: dead peer found`,
        Number.isFinite(foundMs) ? 'found' : 'not found',
        Number.isFinite(foundMs),
      );
      run.checkTime(`${bad.name}: dead peer found ≤ 10 s`, foundMs, 10_000);
      await delay(Math.max(0, seconds * 1_000 - foundMs));
    } else {
      await delay(seconds * 1_000);
    }
    verified.stop();
    if (!bad.isDead && bad.shape.loss === undefined) {
      const mostMs = 2 * 1.25 * intervalSeconds * 1_000;
      run.checkTime(
        `${bad.name}: renewals not stuck behind bulk (≤ ${mostMs / 1_000} s apart)`,
        verified.longestMs,
        mostMs,
      );
    }
    network.shape(machine.place, cleanLink);
    const healedAtMs = Date.now();
    const over = await eventually(async () => {
      const end = (await traffic.atApp()).get(small);
      if ((end?.lastAtMs ?? 0) > healedAtMs + 50) return Date.now() - healedAtMs;
      return end && end.end !== 'open' ? Number.POSITIVE_INFINITY : undefined;
    }, 60_000);
    const againMs = over ?? Number.POSITIVE_INFINITY;
    run.checkTime(`${bad.name}: moves again ≤ 10 s after it is mended`, againMs, 10_000);
    const outcomes: FlowOutcome[] = [];
    for (const flow of [small, large]) {
      await traffic.stopFlow(flow);
      outcomes.push(await traffic.outcome(flow, 60_000));
    }
    const faults = outcomes.flatMap(faultsOf);
    const bytes = outcomes.reduce((sum, { app }) => sum + (app?.receivedBytes ?? 0), 0);
    run.check(
      `${bad.name}: no corruption, nothing lost`,
      faults[0] ?? `${bytes} bytes up, all in order`,
      faults.length === 0,
    );
    await program.stop();
  });
}

export const badLinkScenarios: readonly Scenario[] = badLinks.map((bad) => ({
  name: bad.name,
  isPatient: true,
  missing: missingNetwork,
  run: (run) => endure(run, bad),
}));
