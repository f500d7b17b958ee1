import type { Row, Verdict } from './scenario.ts';

const widest = { scenario: 24, bound: 56, measured: 60 };

/** Prints `scenario | bound | measured | verdict`, and last the line that scripts read. */
export function printRows(rows: readonly Row[]): void {
  const heading = {
    scenario: 'scenario',
    bound: 'bound',
    measured: 'measured',
    verdict: 'verdict',
  };
  const all = [heading, ...rows];
  const width = (key: keyof typeof widest): number =>
    Math.min(widest[key], Math.max(...all.map((row) => row[key].length)));
  const widths = [width('scenario'), width('bound'), width('measured')] as const;
  for (const { scenario, bound, measured, verdict } of all) {
    const cells = [scenario, bound, measured].map((text, at) => text.padEnd(widths[at] ?? 0));
    console.log([...cells, verdict].join(' | '));
  }
  const count = (wanted: Verdict): number =>
    rows.filter(({ verdict }) => verdict === wanted).length;
  console.log(`${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`);
}
