import { setTimeout as delay } from 'node:timers/promises';
import { escapeTerminal, notAvailableYet, printJsonLine } from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';
import { callAdmin } from './admin-client.ts';
import type { AuditVerdict } from '../control-plane/audit/index.ts';
import { adminLeaf, dirOf, done, maybe, textOf, type Arguments, type Leaf } from './command.ts';
import { parsePastMoment } from './value.ts';

/** How often a follower asks for what is new. */
const followEveryMs = 500;

interface Row {
  readonly writer: string;
  readonly position: number;
  readonly atMs: number;
  readonly actor: string;
  readonly action: string;
  readonly subject: string;
  readonly outcome: string;
  readonly ref: string | null;
  readonly user: string | null;
  readonly app: string | null;
  readonly details: Record<string, unknown>;
}

function print(row: Row, argv: Arguments): void {
  if (argv['json'] === true) {
    printJsonLine(row);
    return;
  }
  const words = [new Date(row.atMs).toISOString(), row.actor, row.action, row.subject, row.outcome];
  const ref = row.ref === null ? '' : ` ref=${row.ref}`;
  process.stdout.write(`${escapeTerminal(words.join('  ') + ref)}\n`);
}

async function tail(argv: Arguments): Promise<void> {
  const dir = dirOf(argv);
  /** By writer: every control plane keeps a chain of its own. */
  let after: Record<string, number> | undefined;
  for (;;) {
    const args = after === undefined ? { limit: argv['lines'] } : { after };
    const rows = (await callAdmin(dir, 'audit.tail', args)) as Row[];
    for (const row of rows) {
      print(row, argv);
      after = { ...after, [row.writer]: row.position };
    }
    if (argv['follow'] !== true) return;
    after ??= {};
    if (rows.length === 0) await delay(followEveryMs);
  }
}

const csvColumns = ['atMs', 'actor', 'action', 'subject', 'outcome', 'ref', 'user', 'app'] as const;

/** A cell that no spreadsheet takes for a formula. */
function csvCell(value: string | number | null): string {
  const text = String(value ?? '');
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

async function exportRecords(argv: Arguments): Promise<void> {
  const format = textOf(argv, 'format');
  if (format === 'ocsf') notAvailableYet('audit export --format ocsf');
  const nowMs = Date.now();
  const filter = {
    sinceMs: parsePastMoment(textOf(argv, 'since'), nowMs),
    ...(typeof argv['until'] === 'string'
      ? { untilMs: parsePastMoment(argv['until'], nowMs) }
      : {}),
    ...maybe(argv, 'user'),
    ...maybe(argv, 'app'),
  };
  if (format === 'csv') process.stdout.write(`${csvColumns.join(',')}\n`);
  const after: Record<string, number> = {};
  for (;;) {
    const rows = (await callAdmin(dirOf(argv), 'audit.export', { ...filter, after })) as Row[];
    for (const row of rows) {
      after[row.writer] = row.position;
      if (format === 'csv') {
        process.stdout.write(`${csvColumns.map((column) => csvCell(row[column])).join(',')}\n`);
      } else printJsonLine(row);
    }
    if (rows.length === 0) return;
  }
}

export const auditLeaves: readonly Leaf[] = [
  {
    usage: 'tail',
    describe: 'show the latest audit records',
    options: {
      follow: { type: 'boolean', alias: 'f', describe: 'go on with new ones' },
      lines: { type: 'number', alias: 'n', default: 20, describe: 'how many to begin with' },
    },
    run: tail,
  },
  {
    usage: 'export',
    describe: 'write audit records to standard output',
    options: {
      since: { type: 'string', describe: 'a date, a time or a duration ago', demandOption: true },
      until: { type: 'string', describe: 'a date, a time or a duration ago' },
      user: { type: 'string', describe: 'only what concerns this user' },
      app: { type: 'string', describe: 'only what concerns this app' },
      format: { choices: ['jsonl', 'csv', 'ocsf'], default: 'jsonl', describe: 'of each record' },
    },
    run: exportRecords,
  },
  adminLeaf({
    usage: 'verify',
    describe: 'check the whole chain and its signed checkpoints',
    command: 'audit.verify',
    show: (result, argv) => {
      const { isIntact, records, firstBad } = result as AuditVerdict;
      if (!isIntact) {
        throw new ZtnaError('ERR_INTERNAL', {
          message: `the audit chain is broken at record ${String(firstBad?.position)} (${String(firstBad?.fault)})`,
          hint: 'restore a backup, and find out who wrote to the store',
          reason: 'audit_broken',
        });
      }
      done(() => `ok: ${records} records, chain intact`)(result, argv);
    },
  }),
  adminLeaf({
    usage: 'prune',
    describe: 'forget old records for good; what is kept stays verifiable',
    options: {
      before: { type: 'string', describe: 'a date, a time or a duration ago', demandOption: true },
    },
    command: 'audit.prune',
    args: (argv) => ({ beforeMs: parsePastMoment(textOf(argv, 'before'), Date.now()) }),
    show: done(
      ({ records, firstKept }) =>
        `${String(records)} records pruned; the log begins with record ${String(firstKept)}`,
    ),
  }),
];
