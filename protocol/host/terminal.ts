/**
 * Text from elsewhere, safe to print: control characters, line separators and the marks that change the
 * direction of text become visible escapes, so nothing from a peer can move the cursor or pose as another line.
 */
export function escapeTerminal(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function cellText(value: unknown): string {
  if (value === null || value === undefined || value === '') return '-';
  if (Array.isArray(value)) return value.length === 0 ? '-' : value.map(cellText).join(',');
  if (typeof value === 'string') return escapeTerminal(value);
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') {
    return String(value);
  }
  return escapeTerminal(JSON.stringify(value));
}

/**
 * Rows as an aligned table with a header, each line with its end; the caller prints it. `columns` names the
 * members to show, in order; without it, those of the first row. No rows give an empty string.
 */
export function printTable(
  rows: readonly Readonly<Record<string, unknown>>[],
  columns: readonly string[] = Object.keys(rows[0] ?? {}),
): string {
  if (rows.length === 0) return '';
  const cells = [
    columns.map((column) => column.replace(/([a-z])([A-Z])/g, '$1 $2').toUpperCase()),
    ...rows.map((row) => columns.map((column) => cellText(row[column]))),
  ];
  const widths = columns.map((_, i) => Math.max(...cells.map((line) => line[i]?.length ?? 0)));
  return cells
    .map((line) =>
      line
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

/** One JSON object on one line of stdout. Control characters of every kind are escaped in its strings. */
export function printJsonLine(value: unknown): void {
  process.stdout.write(`${escapeTerminal(JSON.stringify(value))}\n`);
}
