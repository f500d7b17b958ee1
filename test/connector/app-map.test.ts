import test from 'ava';
import { newId, ZtnaError } from '../../protocol/index.ts';
import {
  changedApps,
  mergeAppMaps,
  parseAppArguments,
  servedApps,
} from '../../connector/app-map.ts';
import { maxApps } from '../../connector/limits.ts';
import { parseTarget } from '../../connector/target.ts';

test('parseAppArguments - reads names and targets', (t) => {
  const apps = parseAppArguments(['db=tcp://127.0.0.1:5432', 'wiki=tcp://wiki.internal:80']);
  t.deepEqual([...apps.keys()], ['db', 'wiki']);
  t.is(apps.get('wiki')?.target.host, 'wiki.internal');
});

for (const texts of [
  ['tcp://127.0.0.1:80'],
  ['=tcp://127.0.0.1:80'],
  ['DB=tcp://127.0.0.1:80'],
  ['__proto__=tcp://127.0.0.1:80'],
  ['../db=tcp://127.0.0.1:80'],
  ['a,b=tcp://127.0.0.1:80'],
  ['*=tcp://127.0.0.1:80'],
  ['db=127.0.0.1:80'],
  ['db=tcp://127.0.0.1:80', 'db=tcp://127.0.0.1:81'],
]) {
  test(`parseAppArguments - refuses ${texts.join(' ')}`, (t) => {
    const error = t.throws(() => parseAppArguments(texts), { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_CONFIG_INVALID');
  });
}

test('mergeAppMaps - lets the command line win', (t) => {
  const file = parseAppArguments(['db=tcp://127.0.0.1:1', 'wiki=tcp://127.0.0.1:2']);
  const flags = parseAppArguments(['db=tcp://127.0.0.1:9']);
  const merged = mergeAppMaps(file, flags);
  t.is(merged.get('db')?.target.port, 9);
  t.is(merged.get('wiki')?.target.port, 2);
});

test('mergeAppMaps - refuses one app more than the limit', (t) => {
  const app = { target: parseTarget('tcp://127.0.0.1:1'), check: null };
  const apps = (count: number) =>
    new Map(Array.from({ length: count }, (_, index) => [`app${index}`, app]));
  t.is(mergeAppMaps(apps(maxApps), new Map()).size, maxApps);
  const error = t.throws(() => mergeAppMaps(apps(maxApps + 1), new Map()), {
    instanceOf: ZtnaError,
  });
  t.is(error.code, 'ERR_CONFIG_INVALID');
});

test('changedApps - names what was removed or is dialled elsewhere, and nothing else', (t) => {
  const before = parseAppArguments([
    'same=tcp://127.0.0.1:1',
    'moved=tcp://127.0.0.1:2',
    'gone=tcp://127.0.0.1:3',
  ]);
  const next = parseAppArguments([
    'new=tcp://127.0.0.1:9',
    'moved=tcp://127.0.0.2:2',
    'same=tcp://127.0.0.1:1',
  ]);
  t.deepEqual(changedApps(before, next), ['moved', 'gone']);
});

test('servedApps - keeps no app that the operator did not list', (t) => {
  const apps = parseAppArguments(['db=tcp://127.0.0.1:5432']);
  const [db, other] = [newId('app'), newId('app')];
  const served = servedApps(apps, [
    ['db', db],
    ['other', other],
  ]);
  t.deepEqual([...served.keys()], [db]);
  t.is(served.get(db)?.target.port, 5432);
});
