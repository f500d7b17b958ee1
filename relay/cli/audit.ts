import { setTimeout as delay } from 'node:timers/promises';
import { escapeTerminal, printJsonLine, softwareVersion } from '../../protocol/host/index.ts';
import { ZtnaError } from '../../protocol/index.ts';
import { callAdmin } from './admin-client.ts';
import type { AuditVerdict, ExportedRecord } from '../control-plane/audit/index.ts';
import { adminLeaf, dirOf, done, maybe, textOf, type Arguments, type Leaf } from './command.ts';
import { parsePastMoment } from './value.ts';

/** How often a follower asks for what is new. */
const followEveryMs = 500;

function print(row: ExportedRecord, argv: Arguments): void {
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
    const rows = (await callAdmin(dir, 'audit.tail', args)) as ExportedRecord[];
    for (const row of rows) {
      print(row, argv);
      after = { ...after, [row.writer]: row.position };
    }
    if (argv['follow'] !== true) return;
    after ??= {};
    if (rows.length === 0) await delay(followEveryMs);
  }
}

/** Writes records in a format, after what comes before the first. */
async function writerOf(format: string): Promise<(record: ExportedRecord) => void> {
  if (format === 'jsonl') return printJsonLine;
  if (format === 'csv') {
    const { csvHeader, csvLine } = await import('../control-plane/audit/csv.ts');
    process.stdout.write(csvHeader);
    return (record) => process.stdout.write(csvLine(record));
  }
  const { ocsfEvent } = await import('../control-plane/audit/ocsf.ts');
  return (record) => {
    printJsonLine(ocsfEvent(record, softwareVersion()));
  };
}

async function exportRecords(argv: Arguments): Promise<void> {
  const nowMs = Date.now();
  const filter = {
    sinceMs: parsePastMoment(textOf(argv, 'since'), nowMs),
    ...(typeof argv['until'] === 'string'
      ? { untilMs: parsePastMoment(argv['until'], nowMs) }
      : {}),
    ...maybe(argv, 'user'),
    ...maybe(argv, 'app'),
  };
  const write = await writerOf(textOf(argv, 'format'));
  const after: Record<string, number> = {};
  for (;;) {
    const records = await callAdmin(dirOf(argv), 'audit.export', { ...filter, after });
    for (const record of records as ExportedRecord[]) {
      after[record.writer] = record.position;
      write(record);
    }
    if ((records as ExportedRecord[]).length === 0) return;
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
    describe: 'check the whole chain, its signed checkpoints and the receipts in it',
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
