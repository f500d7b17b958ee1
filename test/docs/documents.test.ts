import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { scenarios } from '../faults/scenarios/index.ts';
import { errorRows } from '../../protocol/errors.ts';
import { weights } from '../../relay/control-plane/risk/index.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const read = (path: string): string => readFileSync(join(top, path), 'utf8');

const documents = [
  ...readdirSync(top).filter((file) => file.endsWith('.md')),
  ...readdirSync(join(top, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .map((file) => join('docs', file)),
];

test('protocol.md - lists every error exactly as the table has it', (t) => {
  const text = read('docs/protocol.md');
  const listed =
    text.match(/<!-- errors: begin[^\n]*-->\n([\s\S]*?)<!-- errors: end -->/)?.[1] ?? '';
  const expected = errorRows().map(
    (row) =>
      `| \`${row.code}\` | ${row.family} | ${row.closeCode} | ${row.retry} | ${row.publicText} |`,
  );
  t.deepEqual(listed.trim().split('\n').slice(2), expected);
});

test('verification.md - lists what adds to a risk exactly as the table has it', (t) => {
  const text = read('docs/verification.md');
  const listed =
    text.match(/<!-- weights: begin[^\n]*-->\n([\s\S]*?)<!-- weights: end -->/)?.[1] ?? '';
  const rows = listed.trim().split('\n').slice(2);
  t.deepEqual(
    rows.map((row) => row.split(' | ').slice(0, 3).join(' | ')),
    Object.entries(weights).map(
      ([name, { points, halfLifeMs }]) => `| \`${name}\` | ${points} | ${halfLifeMs / 3_600_000} h`,
    ),
  );
});

test('documents - link only to files that exist', (t) => {
  for (const document of documents) {
    for (const [, target = ''] of read(document).matchAll(/\]\(([^)#\s]+)(?:#[^)]*)?\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      t.true(existsSync(join(top, dirname(document), target)), `${document} links to ${target}`);
    }
  }
});

test('threat-model.md - names a test that exists for every guarantee and attack', (t) => {
  const guarantees = [...read('docs/threat-model.md').matchAll(/^\| [A-Z]\d+ .*$/gm)].map(
    ([row]) => row,
  );
  t.true(guarantees.length > 10);
  for (const guarantee of guarantees) {
    const named = [...guarantee.matchAll(/`(test\/[^`]+\.test\.ts)` – “([^”]+)”/g)];
    t.true(named.length > 0, `no test named: ${guarantee}`);
    for (const [, file = '', title = ''] of named) {
      t.true(existsSync(join(top, file)), `no such file: ${file}`);
      t.true(
        existsSync(join(top, file)) && read(file).includes(title),
        `${file} has no test “${title}”`,
      );
    }
  }
});

test('reliability.md - names a scenario that exists for every promise, and every scenario', (t) => {
  const [, table = ''] = read('docs/reliability.md').split('## Promises');
  const promises = [...(table.split('Held by')[0] ?? '').matchAll(/^\| [a-z0-9].*$/gm)].slice(1);
  t.true(promises.length > 10);
  const named = promises.flatMap(([row]) => {
    const last = row.split(' | ').at(-1) ?? '';
    const names = [...last.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
    t.true(names.length > 0, row);
    return names;
  });
  t.deepEqual(new Set(named), new Set(scenarios.map(({ name }) => name)));
});
