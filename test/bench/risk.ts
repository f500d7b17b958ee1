/**
 * `npm run bench -- risk`: how often the risk score reaches a threshold for ordinary people, and for attacks on them.
 *
 *   npm run bench -- risk                          200 people, 30 days, seed 1
 *   npm run bench -- risk --users 50 --days 60 --seed 7
 *   npm run bench -- risk --write FILE             also writes the ordinary events, for: ztna-relay risk replay FILE
 *
 * Everything is made up, and the same for the same seed.
 */
import { createWriteStream } from 'node:fs';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { RiskProfile, RiskReplay, type Share } from '../../relay/control-plane/risk/index.ts';
import { attacks } from '../support/risk-attacks.ts';
import { corpusStartMs, dayMs, ordinaryPeople, type Person } from '../support/risk-corpus.ts';
import { SeededRandom } from '../support/random.ts';

const thresholds = [30, 50, 70, 80];

/** How far into its days the corpus an attack comes. */
const attackAfter = 0.7;

export interface RiskFigures {
  readonly events: number;
  readonly eventsPerSecond: number;
  /** Of each threshold. */
  readonly falseAlarms: readonly {
    readonly threshold: number;
    readonly moments: Share;
    readonly users: Share;
    readonly userDays: Share;
  }[];
  /** Of each attack, who of the users was noticed at each threshold. */
  readonly detections: Readonly<Record<string, readonly Share[]>>;
}

/** Runs ordinary people, and each attack on a copy of each person's profile. */
export function measureRisk(options: {
  readonly users: number;
  readonly days: number;
  readonly seed: number;
}): RiskFigures {
  const replays = thresholds.map((threshold) => new RiskReplay({ threshold }));
  const noticed = new Map(Object.keys(attacks).map((name) => [name, thresholds.map(() => 0)]));
  let people = 0;
  let elapsedMs = 0;
  for (const person of ordinaryPeople(options)) {
    const startedAt = performance.now();
    for (const replay of replays) for (const event of person.events) replay.take(event);
    elapsedMs += performance.now() - startedAt;
    const highest = attackAll(person, options);
    if (!highest) continue;
    people++;
    for (const [name, score] of Object.entries(highest)) {
      const counts = noticed.get(name);
      thresholds.forEach((threshold, i) => {
        if (counts && score >= threshold) counts[i] = (counts[i] ?? 0) + 1;
      });
    }
  }
  const summaries = replays.map((replay) => replay.summary());
  const events = summaries[0]?.events ?? 0;
  return {
    events,
    eventsPerSecond: Math.round((events * replays.length * 1_000) / elapsedMs),
    falseAlarms: summaries.map(({ threshold, moments, users, userDays }) => ({
      threshold,
      moments,
      users,
      userDays,
    })),
    detections: Object.fromEntries(
      [...noticed].map(([name, counts]) => [name, counts.map((count) => ({ count, of: people }))]),
    ),
  };
}

/** The highest score of each attack, begun at an ordinary moment of the user at work; undefined for who is not. */
function attackAll(
  { user, habits, events }: Person,
  { days, seed }: { readonly days: number; readonly seed: number },
): Record<string, number> | undefined {
  const fromMs = corpusStartMs + attackAfter * days * dayMs;
  const at = events.findIndex(({ kind, atMs }) => kind === 'connect' && atMs >= fromMs);
  const last = events[at];
  if (!last) return undefined;
  const before = new RiskProfile();
  for (const event of events.slice(0, at + 1)) before.learn(event);
  const json = before.toJson();
  const random = new SeededRandom(seed * 7_919 + at);
  return Object.fromEntries(
    Object.entries(attacks).map(([name, attack]) => {
      const profile = RiskProfile.fromJson(json);
      let highest = 0;
      for (const event of attack({ user, habits, events }, last, random)) {
        profile?.learn(event);
        highest = Math.max(highest, profile?.assess(event.atMs).score ?? 0);
      }
      return [name, highest];
    }),
  );
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

const share = ({ count, of }: Share, digits: number): string =>
  `${((100 * count) / Math.max(of, 1)).toFixed(digits)} %`;

function printFigures(figures: RiskFigures): void {
  const heads = thresholds.map((threshold) => `score ≥ ${threshold}`);
  const line = (name: string, shares: readonly string[]) => console.log(row([name, ...shares]));
  line('ordinary people: false alarms', heads);
  line(
    '---',
    heads.map(() => '---'),
  );
  const alarms = figures.falseAlarms;
  const perDay = alarms[0]?.userDays.of ?? 0;
  const perMoment = alarms[0]?.moments.of ?? 0;
  line(
    `of ${perDay} days of a user after learning`,
    alarms.map(({ userDays }) => `${userDays.count} (${share(userDays, 2)})`),
  );
  line(
    `of ${perMoment} events after learning`,
    alarms.map(({ moments }) => `${moments.count} (${share(moments, 4)})`),
  );
  line(
    `of ${alarms[0]?.users.of ?? 0} users, in all that time`,
    alarms.map(({ users }) => `${users.count} (${share(users, 1)})`),
  );
  const people = Object.values(figures.detections)[0]?.[0]?.of ?? 0;
  console.log('');
  line(`attacks: noticed, of ${people} each`, heads);
  line(
    '---',
    heads.map(() => '---'),
  );
  for (const [name, shares] of Object.entries(figures.detections)) {
    line(
      name,
      shares.map((each) => share(each, 1)),
    );
  }
}

/** Runs the sub-command. */
export async function runRiskBench(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      users: { type: 'string', default: '200' },
      days: { type: 'string', default: '30' },
      seed: { type: 'string', default: '1' },
      write: { type: 'string' },
    },
  });
  const users = Number(values.users);
  const days = Number(values.days);
  const seed = Number(values.seed);
  if (![users, days, seed].every((value) => Number.isInteger(value) && value > 0)) {
    console.error('error: --users, --days and --seed take whole numbers');
    process.exit(2);
  }
  if (values.write !== undefined) await writeEvents(values.write, { users, days, seed });
  const figures = measureRisk({ users, days, seed });
  console.log(
    `${users} people, ${days} days, seed ${seed}: ${figures.events} events, ${figures.eventsPerSecond} a second\n`,
  );
  printFigures(figures);
}

async function writeEvents(
  file: string,
  options: { readonly users: number; readonly days: number; readonly seed: number },
): Promise<void> {
  const stream = createWriteStream(file);
  for (const { events } of ordinaryPeople(options)) {
    const text = events.map((event) => `${JSON.stringify(event)}\n`).join('');
    if (!stream.write(text)) await once(stream, 'drain');
  }
  stream.end();
  await once(stream, 'finish');
  console.error(`the ordinary events: ${file}`);
}
