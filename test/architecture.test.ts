import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const top = fileURLToPath(new URL('..', import.meta.url));
const programs = ['client', 'connector', 'relay'] as const;

interface Import {
  readonly from: string;
  readonly to: string;
}

/** Every import of every source file, as written: packages by name, files by their path from the top. */
function importsOf(folder: string): Import[] {
  return readdirSync(join(top, folder), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) => {
      const path = join(top, folder, file);
      const text = readFileSync(path, 'utf8');
      return [...text.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)'([^']+)'/g)].map(
        ([, target = '']) => ({
          from: join(folder, file),
          to: target.startsWith('.') ? relative(top, join(dirname(path), target)) : target,
        }),
      );
    });
}

function describe(found: readonly Import[]): string[] {
  return found.map(({ from, to }) => `${from} imports ${to}`);
}

test('programs - never import each other', (t) => {
  for (const program of programs) {
    const others = programs.filter((other) => other !== program).map((other) => `${other}/`);
    const found = importsOf(program).filter(({ to }) =>
      others.some((other) => to.startsWith(other)),
    );
    t.deepEqual(describe(found), []);
  }
});

/** The pure door, the host's, and the two of the host that are loaded before a command is known. */
const doors = ['index', 'host/index', 'host/early', 'host/compile-cache'].map(
  (door) => `protocol/${door}.ts`,
);

test('programs - use the wire through its doors only', (t) => {
  for (const program of programs) {
    const imports = importsOf(program);
    t.true(imports.length > 0);
    const found = imports.filter(({ to }) => to.startsWith('protocol/') && !doors.includes(to));
    t.deepEqual(describe(found), []);
  }
});

test('data plane - does not reach the control plane', (t) => {
  const reached = new Set<string>();
  const queue = importsOf('relay/data-plane').map(({ from }) => from);
  const byFile = Map.groupBy(importsOf('relay'), ({ from }) => from);
  for (let file = queue.pop(); file !== undefined; file = queue.pop()) {
    if (reached.has(file)) continue;
    reached.add(file);
    queue.push(...(byFile.get(file) ?? []).map(({ to }) => to));
  }
  t.deepEqual(
    [...reached].filter((file) => file.startsWith('relay/control-plane/')),
    [],
  );
});

test('protocol - is pure outside its host folder', (t) => {
  const allowed = new Set(['node:crypto', 'valibot']);
  const found = importsOf('protocol').filter(
    ({ from, to }) =>
      !from.startsWith('protocol/host/') &&
      !allowed.has(to) &&
      (!to.startsWith('protocol/') || to.startsWith('protocol/host/')),
  );
  t.deepEqual(describe(found), []);
});

test('programs - never load node:http as a module, which would load far more', (t) => {
  for (const folder of ['protocol', ...programs]) {
    for (const { from } of importsOf(folder).filter(({ to }) => to === 'node:http')) {
      const text = readFileSync(join(top, from), 'utf8');
      t.notRegex(text, /^import (?!type )[^;]*?'node:http'/m, from);
    }
  }
});

test('node-forge - issues only: nothing verifies with it', (t) => {
  for (const folder of ['protocol', ...programs]) {
    for (const { from } of importsOf(folder)) {
      const text = readFileSync(join(top, from), 'utf8');
      t.notRegex(text, /verifyCertificateChain|\.verify\(\s*forge|createCaStore/, from);
    }
  }
});
