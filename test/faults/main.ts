/**
 * `npm run faults`: breaks a deployment of the real programs on purpose and proves what the applications saw.
 *
 *   npm run faults                      every scenario in full; loss, order, counts and times are judged
 *   npm run faults -- --quick           small, for continuous integration: times are told and not judged
 *   npm run faults -- --only NAME,NAME  those scenarios only
 *   npm run faults -- --minutes 480     how long the chaos goes on (default 10; quick: 1)
 *   npm run faults -- --rounds 100      how often a relay or control plane is killed (default 20; quick: 5)
 *   npm run faults -- --mib 1024        the size of a transfer (default 10240; quick: 2048)
 *   npm run faults -- --clients 500     how many clients lose their relay at once (default 2000; quick: 100)
 *   npm run faults -- --seed TEXT       the same random choices as the run that printed it
 *   npm run faults -- --json FILE       also write the rows there
 *   npm run faults -- --logs DIR        also write there what every program said, a file each, with the time of each line
 *
 * Prints a table, and last `N passed, N failed, N skipped`. Exit code 1 when anything failed.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { leaveNothingBehind, unlessLeaving } from './clean-up.ts';
import { removeLeftPlaces } from './network.ts';
import { Random } from './random.ts';
import { printRows } from './report.ts';
import { runScenario, type Row, type Scenario } from './scenario.ts';
import { scenarios } from './scenarios/index.ts';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    minutes: { type: 'string' },
    rounds: { type: 'string' },
    mib: { type: 'string' },
    clients: { type: 'string' },
    seed: { type: 'string', default: randomBytes(6).toString('hex') },
    json: { type: 'string' },
    logs: { type: 'string' },
  },
});

function positive(name: string, text: string | undefined): number | undefined {
  if (text === undefined || Number(text) > 0) return text === undefined ? undefined : Number(text);
  console.error(`error: --${name} takes a number above 0`);
  process.exit(2);
}

const minutes = positive('minutes', values.minutes);
const rounds = positive('rounds', values.rounds);
const mib = positive('mib', values.mib);
const clients = positive('clients', values.clients);
const wanted = values.only?.split(',');
const unknown = wanted?.find((name) => !scenarios.some((scenario) => scenario.name === name));
if (unknown !== undefined) {
  const names = scenarios.map(({ name }) => name).join(', ');
  console.error(`error: no scenario is called ${unknown}; there are ${names}`);
  process.exit(2);
}

leaveNothingBehind();
await removeLeftPlaces();
console.error(`seed ${values.seed}`);
const chosen = scenarios.filter(({ name }) => wanted?.includes(name) ?? true);
const found = new Map<string, readonly Row[]>();

/** Takes one scenario after the other until none is left. */
async function runAll(queue: Scenario[]): Promise<void> {
  for (let scenario = queue.shift(); scenario; scenario = queue.shift()) {
    const random = new Random(`${values.seed}/${scenario.name}`);
    const logs = values.logs === undefined ? undefined : join(values.logs, scenario.name);
    const options = { isQuick: values.quick, minutes, rounds, mib, clients, logs, random };
    found.set(scenario.name, await runScenario(scenario, options));
    await unlessLeaving();
  }
}

// Times are judged in a full run, so nothing else may run beside it.
const isPatient = (scenario: Scenario): boolean => values.quick && scenario.isPatient === true;
const patient = chosen.filter(isPatient);
const busy = chosen.filter((scenario) => !isPatient(scenario));
await Promise.all([runAll(busy), runAll(patient), runAll(patient)]);
const rows = chosen.flatMap(({ name }) => found.get(name) ?? []);
printRows(rows);
if (values.json !== undefined) {
  const { seed, quick } = values;
  await writeFile(values.json, `${JSON.stringify({ seed, quick, rows }, null, 2)}\n`);
}
process.exit(rows.some(({ verdict }) => verdict === 'failed') ? 1 : 0);
