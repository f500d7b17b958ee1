import type { ExportedRecord } from './export.ts';

const columns = [
  ...(['atMs', 'actor', 'action', 'subject', 'outcome', 'ref', 'user', 'app'] as const),
  ...(['details', 'writer', 'position'] as const),
] as const satisfies readonly (keyof ExportedRecord)[];

/** The names of the columns, as the first line of a file; `details` is JSON. */
export const csvHeader = `${columns.join(',')}\r\n`;

/** One record as a line of RFC 4180, with its line break. */
export function csvLine(record: ExportedRecord): string {
  const cells = columns.map((column) => {
    const value = record[column];
    return csvCell(typeof value === 'object' && value !== null ? JSON.stringify(value) : value);
  });
  return `${cells.join(',')}\r\n`;
}

/** A cell that no spreadsheet takes for a formula: what begins like one is prefixed with an apostrophe. */
export function csvCell(value: string | number | null): string {
  const text = String(value ?? '');
  const safe = /^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
