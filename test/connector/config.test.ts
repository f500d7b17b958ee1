import test from 'ava';
import { ZtnaError } from '../../protocol/index.ts';
import { parseConfig } from '../../connector/config.ts';

const read = (text: string) => parseConfig(text, 'connector.yaml');

for (const [title, text] of [
  ['an empty file', ''],
  ['a comment', '# nothing yet\n'],
  ['apps without entries', 'apps:\n'],
  ['an empty map', 'apps: {}\n'],
]) {
  test(`parseConfig - reads no apps from ${title ?? ''}`, (t) => {
    t.is(read(text ?? '').size, 0);
  });
}

test('parseConfig - reads apps in both styles of YAML', (t) => {
  t.deepEqual(
    read('apps: { db: tcp://127.0.0.1:5432 }').get('db'),
    read('apps:\n  db: tcp://127.0.0.1:5432\n').get('db'),
  );
});

for (const [title, text, line, words] of [
  ['an unknown key', 'apps: {}\nlisten: 1\n', 2, /unknown key "listen"/],
  ['a sequence of apps', 'apps:\n  - db\n', 2, /apps holds lines/],
  ['a top level that is no map', '- apps\n', 1, /expected a line/],
  ['an app named twice', 'apps:\n  db: tcp://h:1\n  db: tcp://h:2\n', 3, /unique/],
  ['a bad name', 'apps:\n  ok: tcp://h:1\n  "A b": tcp://h:1\n', 3, /cannot name an app/],
  ['a prototype for a name', 'apps:\n  __proto__: tcp://h:1\n', 2, /cannot name an app/],
  ['a number for a target', 'apps:\n  db: 5432\n', 2, /needs a target/],
  ['a missing target', 'apps:\n  db:\n', 2, /needs a target/],
  ['a bad target', 'apps:\n  db: tcp://127.1:5432\n', 2, /not an address in full/],
  ['a merge key', 'x: &x { db: tcp://h:1 }\napps:\n  <<: *x\n', 1, /unknown key "x"/],
  ['an alias for a target', 'apps:\n  a: &a tcp://h:1\n  b: *a\n', 3, /needs a target/],
  ['broken YAML', 'apps:\n  db: [\n', 3, /./],
  ['a tag', 'apps: !thing {}\n', 1, /./],
  ['two documents', 'apps: {}\n---\napps: {}\n', 2, /./],
] as const) {
  test(`parseConfig - refuses ${title} and names its line`, (t) => {
    const error = t.throws(() => read(text), { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_CONFIG_INVALID');
    t.regex(error.message, new RegExp(`^connector\\.yaml line ${line}: `));
    t.regex(error.message, words);
  });
}

test('parseConfig - suggests the key that was meant', (t) => {
  const error = t.throws(() => read('app:\n  db: tcp://h:1\n'), { instanceOf: ZtnaError });
  t.is(error.hint, 'did you mean apps?');
});

test('parseConfig - says which line holds a kind that is not available yet', (t) => {
  const error = t.throws(() => read('apps:\n  dns: udp://h:53\n'), { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_CONFIG_NOT_AVAILABLE');
  t.regex(error.message, /line 2: dns: not available yet/);
});
