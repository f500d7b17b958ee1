import { once } from 'node:events';
import { open } from 'node:fs/promises';
import { createLogger, escapeTerminal, logLevel } from '../../protocol/host/index.ts';
import { toZtnaError, ZtnaError } from '../../protocol/index.ts';
import { dirOf, maybe, talk, textOf, type Arguments, type Leaf } from './command.ts';
import { readLines } from './read-lines.ts';
import type {
  PlaceFiles,
  PlaceFinder,
  ReplaySummary,
  RiskMoment,
  Share,
} from '../control-plane/risk/index.ts';

const maxLineBytes = 1_048_576;
/** Files above this are slow enough to tell how far it has come, in so many steps. */
const longFileBytes = 16_777_216;
const progressSteps = 10;
const progressEvents = 1_000_000;

/** Loaded when it is needed: most commands have no use for it. */
const loadRisk = () => import('../control-plane/risk/index.ts');

const columns = [
  ['TIME', 24],
  ['USER', 16],
  ['EVENT', 15],
  ['APP', 16],
  ['SCORE', 5],
] as const;

function row(cells: readonly string[], why: string): string {
  const aligned = columns.map(([, width], i) => escapeTerminal(cells[i] ?? '').padEnd(width));
  return `${[...aligned, escapeTerminal(why)].join('  ').trimEnd()}\n`;
}

function describe(moment: RiskMoment): string {
  const { atMs, user, event, app, score, contributions } = moment;
  const why = contributions.map(({ name, points, detail }) => `${name} ${points} (${detail})`);
  const cells = [new Date(atMs).toISOString(), user, event, app ?? '-', String(score)];
  return row(cells, why.join(', '));
}

/** Waits where a reader of standard output is slower. */
async function print(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, 'drain');
}

const line = (value: unknown): string => `${escapeTerminal(JSON.stringify(value))}\n`;

function percent({ count, of }: Share): string {
  return `${count} of ${of} (${of === 0 ? '0' : ((100 * count) / of).toFixed(3)} %)`;
}

function tellSummary({ events, learning, highest, ...summary }: ReplaySummary): void {
  talk(`${events} events of ${summary.users.of} users, ${learning} of them still being learned`);
  talk(`highest score: ${highest}`);
  talk(`reached ${summary.threshold}: ${percent(summary.moments)} moments after learning`);
  talk(`               ${percent(summary.users)} users`);
  talk(`               ${percent(summary.userDays)} days of a user after learning`);
}

function thresholdOf(argv: Arguments): number | undefined {
  const threshold = argv['threshold'];
  if (threshold === undefined) return undefined;
  if (Number.isInteger(threshold) && (threshold as number) >= 1 && (threshold as number) <= 100) {
    return threshold as number;
  }
  throw new ZtnaError('ERR_CONFIG_USAGE', { message: '--threshold takes a number from 1 to 100' });
}

/** The files of the flags, else those of the relay's configuration, where there is one. */
async function placeFiles(argv: Arguments): Promise<PlaceFiles> {
  const { city = null, asn = null } = { ...maybe(argv, 'city'), ...maybe(argv, 'asn') };
  if (city !== null || asn !== null) return { city, asn };
  const { readRelayConfig } = await import('../config.ts');
  try {
    return (await readRelayConfig(dirOf(argv))).risk.geo;
  } catch (error) {
    if (toZtnaError(error).code === 'ERR_CONFIG_NOT_FOUND') return { city, asn };
    throw error;
  }
}

interface Input {
  readonly stream: AsyncIterable<Buffer>;
  readonly sizeBytes: number; // 0 when nobody knows
  close(): Promise<void>;
}

async function openInput(path: string): Promise<Input> {
  if (path === '-') {
    return { stream: process.stdin, sizeBytes: 0, close: () => Promise.resolve() };
  }
  try {
    const file = await open(path);
    const { size } = await file.stat();
    const stream = file.createReadStream({ autoClose: false }) as AsyncIterable<Buffer>;
    return { stream, sizeBytes: size, close: () => file.close() };
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `cannot read ${path}`, cause });
  }
}

async function replay(argv: Arguments): Promise<void> {
  const { noPlaces, PlaceFinder: Finder, RiskReplay } = await loadRisk();
  const threshold = thresholdOf(argv);
  const isJson = argv['json'] === true;
  const files = await placeFiles(argv);
  let places: PlaceFinder | undefined;
  const input = await openInput(textOf(argv, 'file'));
  try {
    if (files.city !== null || files.asn !== null) {
      places = await Finder.open(files, createLogger({ program: 'ztna-relay', level: logLevel() }));
    }
    const replayed = new RiskReplay({
      places: places ?? noPlaces,
      ...(threshold === undefined ? {} : { threshold }),
      user: maybe(argv, 'user').user,
    });
    /** The score that was printed last, by user. */
    const printed = new Map<string, number>();
    const tellProgress = progress(input.sizeBytes);
    if (!isJson)
      await print(
        row(
          columns.map(([name]) => name),
          'WHY',
        ),
      );
    let number = 0;
    for await (const text of readLines(input.stream, maxLineBytes)) {
      number++;
      tellProgress(Buffer.byteLength(text) + 1, number);
      if (text.trim() === '') continue;
      let moment: RiskMoment | undefined;
      try {
        moment = replayed.takeLine(text);
      } catch (cause) {
        const { code, message } = toZtnaError(cause);
        throw new ZtnaError(code, { message: `line ${number}: ${message}`, cause });
      }
      if (!moment) continue;
      const { hasCrossed, ...facts } = moment;
      const isNews = (printed.get(moment.user) ?? 0) !== moment.score;
      if (threshold === undefined ? !isNews : !hasCrossed) continue;
      printed.set(moment.user, moment.score);
      await print(isJson ? line(facts) : describe(moment));
    }
    const summary = replayed.summary();
    if (isJson) await print(line({ summary }));
    else tellSummary(summary);
  } finally {
    places?.stop();
    await input.close();
  }
}

/** Says now and then how far it has come: in tenths of a long file, in millions of lines of a stream. */
function progress(sizeBytes: number): (bytes: number, lines: number) => void {
  let doneBytes = 0;
  let step = 1;
  return (bytes, lines) => {
    doneBytes += bytes;
    if (sizeBytes === 0) {
      if (lines % progressEvents === 0) talk(`… ${lines} lines`);
      return;
    }
    if (sizeBytes < longFileBytes || doneBytes < (step * sizeBytes) / progressSteps) return;
    talk(`… ${Math.min(100, Math.floor((100 * doneBytes) / sizeBytes))} %, ${lines} lines`);
    step = Math.floor((progressSteps * doneBytes) / sizeBytes) + 1;
  };
}

export const riskLeaves: readonly Leaf[] = [
  {
    usage: 'replay <file>',
    describe: 'run a recorded history and print the score over time; needs no running relay',
    positionals: {
      file: {
        type: 'string',
        describe: 'what audit export --format jsonl wrote, or events as JSON lines; - for stdin',
        demandOption: true,
      },
    },
    options: {
      user: { type: 'string', describe: 'only this user' },
      threshold: {
        type: 'number',
        describe: 'only where the score comes to N, and how often that is',
      },
      city: { type: 'string', describe: 'MaxMind file of countries and cities; else relay.yaml’s' },
      asn: { type: 'string', describe: 'MaxMind file of networks; else relay.yaml’s' },
    },
    run: replay,
  },
];
