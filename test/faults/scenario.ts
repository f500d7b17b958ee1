import type { Random } from './random.ts';

export type Verdict = 'passed' | 'failed' | 'skipped' | 'not judged';

export interface Row {
  readonly scenario: string;
  readonly bound: string;
  readonly measured: string;
  readonly verdict: Verdict;
}

/** What a scenario is run with, and where it tells what it saw. */
export interface Run {
  /** Small, and judged by loss, order and counts only. */
  readonly isQuick: boolean;
  readonly minutes: number | undefined;
  readonly rounds: number | undefined;
  readonly mib: number | undefined;
  /** How many clients make a stampede, where that was asked for. */
  readonly clients: number | undefined;
  /** Where every program's lines are written, if that was asked for. */
  readonly logs: string | undefined;
  readonly random: Random;
  say(line: string): void;
  /** A bound on loss, order or a count. */
  check(bound: string, measured: string | number, holds: boolean): void;
  /** A bound on time, which a quick run tells and does not judge. */
  checkTime(bound: string, measuredMs: number, mostMs: number): void;
  /** A part that cannot be run here, and why. */
  skip(bound: string, reason: string): void;
}

export interface Scenario {
  readonly name: string;
  /** It waits more than it works, so a quick run has it beside others. */
  readonly isPatient?: boolean;
  /** Why it cannot be run here; undefined when it can. */
  readonly missing?: () => string | undefined;
  readonly run: (run: Run) => Promise<void>;
}

/** Runs one scenario to its rows. Whatever it throws is a row that failed. */
export async function runScenario(
  scenario: Scenario,
  options: Pick<Run, 'isQuick' | 'minutes' | 'rounds' | 'mib' | 'clients' | 'logs' | 'random'>,
): Promise<Row[]> {
  const rows: Row[] = [];
  const { name } = scenario;
  const add = (bound: string, measured: string, verdict: Verdict): void => {
    rows.push({ scenario: name, bound, measured, verdict });
    tell(`${verdict}: ${bound}: ${measured}`);
  };
  const startedAtMs = performance.now();
  const tell = (line: string): void => {
    const seconds = ((performance.now() - startedAtMs) / 1_000).toFixed(1);
    console.error(`${name.padEnd(22)} ${seconds.padStart(6)} s  ${line}`);
  };
  const missing = scenario.missing?.();
  if (missing !== undefined) {
    add('whole scenario', missing, 'skipped');
    return rows;
  }
  try {
    await scenario.run({
      ...options,
      say: tell,
      check: (bound, measured, holds) => {
        add(bound, String(measured), holds ? 'passed' : 'failed');
      },
      checkTime: (bound, measuredMs, mostMs) => {
        const isHeld = measuredMs <= mostMs;
        const judged = isHeld ? 'passed' : 'failed';
        const told = Number.isFinite(measuredMs) ? `${(measuredMs / 1_000).toFixed(2)} s` : 'never';
        add(bound, told, options.isQuick ? 'not judged' : judged);
      },
      skip: (bound, reason) => {
        add(bound, reason, 'skipped');
      },
    });
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    tell(text);
    add('runs to its end', text.split('\n')[0] ?? '', 'failed');
  }
  tell('done');
  return rows;
}
