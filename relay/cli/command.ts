import type { Argv, Options, PositionalOptions } from 'yargs';
import { escapeTerminal, printJsonLine, printTable } from '../../protocol/host/index.ts';
import { callAdmin } from './admin-client.ts';

/** What yargs read, as far as a command may rely on it. */
export type Arguments = Readonly<Record<string, unknown>>;

/** One leaf of the command tree. */
export interface Leaf {
  /** `add <name>`: the words below the parent and the positional arguments. */
  readonly usage: string;
  readonly describe: string;
  readonly positionals?: Readonly<Record<string, PositionalOptions>>;
  readonly options?: Readonly<Record<string, Options>>;
  readonly run: (argv: Arguments) => Promise<void>;
}

/** Adds a group of leaves under one word, which does nothing by itself. */
export function addGroup(y: Argv, word: string, describe: string, leaves: readonly Leaf[]): Argv {
  return y.command(word, describe, (inner) => {
    const all = leaves.reduce(addLeaf, inner);
    return all.demandCommand(1, 1, `name a command: ${leafNames(leaves)}`).strict();
  });
}

export function addLeaf(y: Argv, leaf: Leaf): Argv {
  return y.command(
    leaf.usage,
    leaf.describe,
    (inner) => {
      for (const [name, options] of Object.entries(leaf.positionals ?? {})) {
        inner.positional(name, options);
      }
      for (const [name, options] of Object.entries(leaf.options ?? {})) inner.option(name, options);
      return inner.strict();
    },
    (argv) => leaf.run(argv),
  );
}

function leafNames(leaves: readonly Leaf[]): string {
  return leaves.map((leaf) => leaf.usage.split(' ')[0]).join(', ');
}

/** How an answer is shown without `--json`. */
export type Show = (result: unknown, argv: Arguments) => void;

/** A leaf that is one administration command of the running relay. */
export function adminLeaf(
  leaf: Omit<Leaf, 'run'> & {
    readonly command: string;
    readonly args?: (argv: Arguments) => Record<string, unknown> | Promise<Record<string, unknown>>;
    readonly show: Show;
  },
): Leaf {
  return {
    ...leaf,
    run: async (argv) => {
      const args = leaf.args ? await leaf.args(argv) : {};
      const result = await callAdmin(dirOf(argv), leaf.command, args);
      if (argv['json'] === true) printJson(result);
      else leaf.show(result, argv);
    },
  };
}

/** One object per line: each row of a list, or the one answer. */
export function printJson(result: unknown): void {
  for (const value of Array.isArray(result) ? (result as unknown[]) : [result]) {
    printJsonLine(value);
  }
}

/** Shows rows as a table of these columns, or says that there are none. */
export function table(...columns: readonly string[]): Show {
  return (result) => {
    const rows = result as Record<string, unknown>[];
    if (rows.length === 0) talk('none');
    else
      process.stdout.write(ensureNewline(printTable(rows.map(displayRow), columns.map(labelOf))));
  };
}

/** Shows an object one member a line. */
export const fields: Show = (result) => {
  const row = displayRow(result as Record<string, unknown>);
  const width = Math.max(...Object.keys(row).map((key) => key.length));
  for (const [key, value] of Object.entries(row)) {
    process.stdout.write(`${key.padEnd(width)}  ${escapeTerminal(value)}\n`);
  }
};

/** Says on stderr what was done; stdout stays empty. */
export function done(words: (result: Record<string, unknown>, argv: Arguments) => string): Show {
  return (result, argv) => {
    talk(words((result ?? {}) as Record<string, unknown>, argv));
  };
}

/** A line for the person, on stderr. */
export function talk(line: string): void {
  process.stderr.write(`${escapeTerminal(line)}\n`);
}

function ensureNewline(text: string): string {
  return text.endsWith('\n') ? text : `${text}\n`;
}

/** A row for people: instants lose the `AtMs` of their names and are shown as times. */
function displayRow(row: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(row).map(([key, value]) =>
      isInstant(key) ? [labelOf(key), displayInstant(value)] : [key, display(value)],
    ),
  );
}

function isInstant(key: string): boolean {
  return /(?:AtMs|untilMs|UntilMs)$/.test(key);
}

function labelOf(column: string): string {
  return isInstant(column) ? column.replace(/(?:At)?Ms$/, '') : column;
}

function displayInstant(value: unknown): string {
  return typeof value === 'number' ? new Date(value).toISOString() : '-';
}

function display(value: unknown): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (Array.isArray(value) && value.every((item) => typeof item !== 'object')) {
    return value.length === 0 ? '-' : value.join(', ');
  }
  return value === null || value === undefined ? '-' : JSON.stringify(value);
}

/** The state directory of the relay. */
export function dirOf(argv: Arguments): string {
  return textOf(argv, 'dir');
}

export function textOf(argv: Arguments, key: string): string {
  const value = argv[key];
  if (typeof value === 'string') return value;
  return typeof value === 'number' ? String(value) : '';
}

/** The text of an option, or nothing when it was not given, for spreading into arguments. */
export function maybe<K extends string>(argv: Arguments, key: K): Partial<Record<K, string>> {
  const value = argv[key];
  return typeof value === 'string' ? ({ [key]: value } as Partial<Record<K, string>>) : {};
}

export function listOf(argv: Arguments, key: string): string[] {
  const value = argv[key];
  if (value === undefined) return [];
  return (Array.isArray(value) ? (value as unknown[]) : [value]).map((item) => String(item));
}
