import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { openSqlite } from '../../../../relay/control-plane/store/sqlite.ts';
import { ZtnaError } from '../../../../protocol/index.ts';

test('sqlite - a full disk is the store that is away, and a broken rule is not', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-test-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const database = openSqlite(join(dir, 'store.sqlite'));
  const run = (text: string, ...parameters: unknown[]): unknown =>
    database.prepare(text).run(parameters);
  run('create table notes (id integer primary key, text blob not null unique)');
  database.prepare('pragma max_page_count = 8').all([]); // what a full disk says, without one
  const full = t.throws(() => run('insert into notes (text) values (?)', Buffer.alloc(100_000)));
  t.true(full instanceof ZtnaError);
  t.like(full, { code: 'ERR_RELAY_UNAVAILABLE', reason: 'store_unavailable' });
  run('insert into notes (text) values (?)', 'a');
  const broken = t.throws(() => run('insert into notes (text) values (?)', 'a'));
  t.false(broken instanceof ZtnaError);
  run('rollback'); // the engine may have done it by itself
  database.close();
});
