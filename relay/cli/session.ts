import { adminLeaf, maybe, table, textOf, type Leaf } from './command.ts';
import { fieldsWithRisk } from './object.ts';

interface Check {
  readonly state: string;
  readonly lastOkAtMs: number;
  readonly nextCheckAtMs: number;
  readonly unreachableSinceMs: number | null;
  readonly lastError: string | null;
}

const time = (atMs: number): string => new Date(atMs).toISOString();

/** When the provider was asked last, and how that went. */
function checkText(check: Check | null): string {
  if (!check) return '-';
  const { state, lastOkAtMs, nextCheckAtMs, unreachableSinceMs, lastError } = check;
  return unreachableSinceMs === null
    ? `${state} at ${time(lastOkAtMs)}, again at ${time(nextCheckAtMs)}`
    : `${state} since ${time(unreachableSinceMs)} (${lastError ?? 'no answer'}), ok at ${time(lastOkAtMs)}, again at ${time(nextCheckAtMs)}`;
}

/** 59s, 12m, 3h, 2d: how long ago. */
export function ageText(seconds: number): string {
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3_600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

interface Row extends Record<string, unknown> {
  readonly ageSeconds: number;
  readonly providerCheck: Check | null;
}

const listed = ['id', 'user', 'device', 'address', 'provider', 'methods', 'acr', 'age'] as const;

/** `session …`: who is signed in where, how, and since when. */
export const sessionLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'list',
    describe: 'list sessions that have not ended',
    options: { user: { type: 'string', describe: 'only of this user' } },
    command: 'session.list',
    args: (argv) => maybe(argv, 'user'),
    show: (result, argv) => {
      const rows = (result as Row[]).map((row) => ({
        ...row,
        age: ageText(row.ageSeconds),
        check: row.providerCheck?.state ?? null,
      }));
      table(...listed, 'untilMs', 'check', 'state')(rows, argv);
    },
  }),
  adminLeaf({
    usage: 'show <id>',
    describe: 'show a session, with its risk and when its provider was asked last',
    positionals: {
      id: { type: 'string', describe: 'id, or its unique beginning', demandOption: true },
    },
    command: 'session.show',
    args: (argv) => ({ id: textOf(argv, 'id') }),
    show: (result, argv) => {
      const { ageSeconds, providerCheck, ...rest } = result as Row;
      const more = { age: ageText(ageSeconds), providerCheck: checkText(providerCheck) };
      fieldsWithRisk({ ...rest, ...more }, argv);
    },
  }),
];
