import test from 'ava';
import fc from 'fast-check';
import * as v from 'valibot';
import { idSchema, isId, isName, newId, type IdKind } from '../../protocol/id.ts';

const kinds: IdKind[] = [
  'user',
  'group',
  'session',
  'device',
  'site',
  'app',
  'connector',
  'instance',
  'relay',
  'tunnel',
  'grant',
  'decision',
  'invite',
];

test('newId - an id is one of its own kind and of no other', (t) => {
  for (const kind of kinds) {
    const id = newId(kind);
    for (const other of kinds) t.is(isId(other, id), other === kind);
    t.true(v.is(idSchema(kind), id));
  }
});

test('newId - 10,000 ids are 10,000 different ones', (t) => {
  t.is(new Set(Array.from({ length: 10_000 }, () => newId('app'))).size, 10_000);
});

test('isId - refuses every text that differs from an id in one character of another alphabet', (t) => {
  const id = newId('tunnel');
  for (let index = 0; index < id.length; index++) {
    for (const wrong of ['i', 'l', 'o', 'u', 'A', '_', '-', '*', ' ', '\n', '\0', 'é', '٣']) {
      if (id[index] === wrong) continue;
      if (index < 4 && id.slice(0, index) + wrong + id.slice(index + 1) === id) continue;
      t.false(isId('tunnel', id.slice(0, index) + wrong + id.slice(index + 1)));
    }
  }
  for (const wrong of [`${id}\n`, `${id} `, ` ${id}`, id.slice(1), id.slice(0, -1), id + '0', '']) {
    t.false(isId('tunnel', wrong));
  }
  for (const wrong of [undefined, null, 1, {}, [id], { toString: () => id }]) {
    t.false(isId('tunnel', wrong));
  }
});

test('isName - takes plain lower-case names of up to 64 characters', (t) => {
  for (const name of ['a', 'wiki', 'db-2', 'a.b', 'ann@example.com', 'a_b', '0', 'a'.repeat(64)]) {
    t.true(isName(name), name);
  }
});

test('isName - refuses separators, wildcards, look-alikes, control characters and great length', (t) => {
  for (const name of [
    '',
    'a'.repeat(65),
    'a'.repeat(65_536),
    'A',
    'a,b',
    'a b',
    'a\0',
    'a\n',
    '\na',
    '*',
    'a*',
    '../a',
    'a..b',
    '.a',
    'a.',
    '-a',
    'a-',
    'a/b',
    'a\\b',
    'a"b',
    '\u202ea',
    'а', // Cyrillic
    'é',
    'ⅷ',
    'a\u200b',
    '%00',
  ]) {
    t.false(isName(name), JSON.stringify(name));
  }
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (name) => {
      if (isName(name)) t.regex(name, /^[a-z0-9._@-]+$/);
      else t.pass();
    }),
  );
});
