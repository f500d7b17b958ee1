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
    t.is(read(text ?? '').apps.size, 0);
  });
}

test('parseConfig - reads apps in both styles of YAML', (t) => {
  t.deepEqual(
    read('apps: { db: tcp://127.0.0.1:5432 }').apps.get('db'),
    read('apps:\n  db: tcp://127.0.0.1:5432\n').apps.get('db'),
  );
});

test('parseConfig - checks an app every ten seconds unless it is told how', (t) => {
  const { apps } = read(
    [
      'apps:',
      '  plain: tcp://h:1',
      '  web: { target: tcp://h:2, health: { http: "/healthz?full=1", interval: 30s, timeout: 500ms } }',
      '  quick: { target: tcp://h:3, health: { interval: 1s } }',
      '  quiet: { target: tcp://h:4, health: off }',
      '  none: { target: tcp://h:5 }',
    ].join('\n'),
  );
  const usual = { httpPath: null, intervalMs: 10_000, timeoutMs: 2_000 };
  t.deepEqual(apps.get('plain')?.check, usual);
  t.deepEqual(apps.get('none')?.check, usual);
  t.deepEqual(apps.get('quick')?.check, { ...usual, intervalMs: 1_000 });
  t.is(apps.get('quiet')?.check, null);
  t.deepEqual(apps.get('web')?.check, {
    httpPath: '/healthz?full=1',
    intervalMs: 30_000,
    timeoutMs: 500,
  });
  t.is(apps.get('web')?.target.port, 2);
});

test('parseConfig - waits 25 s for tunnels in use when it stops unless it is told otherwise', (t) => {
  t.is(read('apps: {}').drainForMs, 25_000);
  t.is(read('').drainForMs, 25_000);
  t.is(read('drainFor: 5m').drainForMs, 300_000);
  t.is(read('drainFor: 0s').drainForMs, 0);
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
  ['an app without a target', 'apps:\n  db: { health: off }\n', 2, /needs a target/],
  ['an unknown member of an app', 'apps:\n  db: { target: tcp://h:1, helth: off }\n', 2, /"helth"/],
  [
    'a health that says nothing',
    'apps:\n  db: { target: tcp://h:1, health: on }\n',
    2,
    /health is off/,
  ],
  [
    'a path without a slash',
    'apps:\n  db: { target: tcp://h:1, health: { http: x } }\n',
    2,
    /path/,
  ],
  [
    'a path that breaks a line',
    'apps:\n  db: { target: tcp://h:1, health: { http: "/a\\r\\nb" } }\n',
    2,
    /path/,
  ],
  [
    'an interval that is none',
    'apps:\n  db: { target: tcp://h:1, health: { interval: 10 } }\n',
    2,
    /interval/,
  ],
  [
    'an interval that is too short',
    'apps:\n  db: { target: tcp://h:1, health: { interval: 1ms } }\n',
    2,
    /interval/,
  ],
  ['a drain that takes too long', 'drainFor: 2h\n', 1, /drainFor/],
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
