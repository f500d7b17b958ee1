import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setImmediate as nextTurn } from 'node:timers/promises';
import ava from 'ava';
import {
  openStore,
  raiseCounter,
  raiseCounterTo,
  readCounter,
} from '../../../../relay/control-plane/store/index.ts';
import {
  addUser,
  onEveryStore,
  openTestStore,
  temporaryDirectory,
  testStoreUrl,
} from '../fixture.ts';

const test = onEveryStore(ava);

test('openStore - brings an empty directory to the newest schema, and again without a change', async (t) => {
  const options = { directory: temporaryDirectory(t), url: await testStoreUrl(t, 'nothing') };
  const first = await openStore(options);
  const { id } = await addUser(first, 'anna');
  await first.close();
  const second = await openStore(options);
  const user = await second.db.selectFrom('users').selectAll().executeTakeFirstOrThrow();
  t.is(user.id, id);
  await second.close();
});

ava('openStore - keeps its files from everyone else', async (t) => {
  const directory = join(temporaryDirectory(t), 'control-plane');
  const store = await openStore({ directory });
  await addUser(store, 'anna');
  t.is(statSync(directory).mode & 0o777, 0o700);
  const files = readdirSync(directory);
  t.true(files.includes('store.sqlite-wal'));
  for (const file of files) t.is(statSync(join(directory, file)).mode & 0o777, 0o600, file);
  await store.close();
});

ava('openStore - refuses a store that a newer release has changed', async (t) => {
  const directory = temporaryDirectory(t);
  await (await openStore({ directory })).close();
  const raw = new DatabaseSync(join(directory, 'store.sqlite'));
  raw.exec(`insert into kysely_migration (name, timestamp) values ('9999_future', '2030')`);
  raw.close();
  await t.throwsAsync(openStore({ directory }), { code: 'ERR_CONFIG_INVALID' });
  raw.open();
  raw.exec(`delete from kysely_migration where name = '9999_future'`);
  raw.close();
  await (await openStore({ directory })).close();
});

test('openStore - refuses a directory that this process has open already', async (t) => {
  const options = { directory: temporaryDirectory(t), url: await testStoreUrl(t) };
  const store = await openStore(options);
  const error = await t.throwsAsync(openStore(options), { code: 'ERR_CONFIG_LOCKED' });
  t.true(error.message.includes(String(process.pid)));
  await store.close();
  await (await openStore(options)).close();
});

test('openStore - refuses a row that refers to nothing', async (t) => {
  const store = await openTestStore(t);
  await t.throwsAsync(
    store.write((tx) =>
      tx
        .insertInto('memberships')
        .values({
          userId: 'usr_none' as never,
          groupId: 'grp_none' as never,
          untilMs: null,
          createdAtMs: 1,
        })
        .execute(),
    ),
    { message: /foreign key/i },
  );
});

test('write - undoes everything when the change throws, and tells nobody', async (t) => {
  const store = await openTestStore(t);
  let told = 0;
  const failure = new Error('no');
  const thrown = await t.throwsAsync(
    store.write(async (tx) => {
      await tx.insertInto('meta').values({ key: 'a', value: 'b' }).execute();
      store.afterCommit(tx, () => told++);
      throw failure;
    }),
  );
  t.is(thrown, failure);
  t.deepEqual(await store.db.selectFrom('meta').selectAll().execute(), []);
  t.is(told, 0);
});

test('write - runs transactions one after another, and tells of a commit after it', async (t) => {
  const store = await openTestStore(t);
  const order: string[] = [];
  const change = (name: string) =>
    store.write(async (tx) => {
      order.push(`${name} begins`);
      store.afterCommit(tx, () => order.push(`${name} told`));
      await raiseCounter(tx, 'fencing');
      await tx.selectFrom('users').selectAll().execute();
      order.push(`${name} ends`);
    });
  await Promise.all([change('a'), change('b')]);
  t.deepEqual(order.slice(0, 2), ['a begins', 'a ends']);
  t.true(order.indexOf('a ends') < order.indexOf('b begins'));
  t.true(order.indexOf('a told') > order.indexOf('a ends'));
  t.is(await readCounter(store.db, 'fencing'), 2);
});

test('write - changes that are apart stand or fall alone, whatever they share', async (t) => {
  const store = await openTestStore(t);
  const told: string[] = [];
  const failure = new Error('no');
  const change = (key: string, apart: string) =>
    store.write(
      async (tx) => {
        await tx.insertInto('meta').values({ key, value: 'b' }).execute();
        store.afterCommit(tx, () => told.push(key));
        if (key === 'fails') throw failure;
        return key;
      },
      { apart },
    );
  const outcomes = await Promise.allSettled([
    change('first', 'a'),
    change('fails', 'b'),
    change('first', 'c'), // a key that is there already
    change('last', 'd'),
  ]);
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'rejected', 'fulfilled'],
  );
  t.is((outcomes[1] as PromiseRejectedResult).reason, failure);
  t.deepEqual(told, ['first', 'last']);
  const kept = await store.db.selectFrom('meta').select('key').orderBy('key').execute();
  t.deepEqual(
    kept.map(({ key }) => key),
    ['first', 'last'],
  );
});

ava('write - changes that are apart share a commit with SQLite', async (t) => {
  const store = await openStore({ directory: temporaryDirectory(t) });
  const order: string[] = [];
  const change = (apart: string) =>
    store.write(
      async (tx) => {
        order.push(`${apart} begins`);
        await raiseCounter(tx, 'fencing');
        store.afterCommit(tx, () => order.push(`${apart} told`));
      },
      { apart },
    );
  await Promise.all([change('a'), change('b')]);
  t.deepEqual(order, ['a begins', 'b begins', 'a told', 'b told']);
  t.is(await readCounter(store.db, 'fencing'), 2);
  await store.close();
});

ava('write - changes that come in with the next messages share a commit with SQLite', async (t) => {
  const store = await openStore({ directory: temporaryDirectory(t) });
  const order: string[] = [];
  const change = (apart: string) =>
    store.write(
      (tx) => {
        order.push(`${apart} begins`);
        store.afterCommit(tx, () => order.push(`${apart} told`));
        return Promise.resolve();
      },
      { apart },
    );
  const next = nextTurn().then(() => change('b'));
  await Promise.all([change('a'), next]);
  t.deepEqual(order, ['a begins', 'b begins', 'a told', 'b told']);
  await store.close();
});

test('write - what is about the same sees what the one before has told', async (t) => {
  const store = await openTestStore(t);
  const order: string[] = [];
  const change = (name: string, apart?: string) =>
    store.write(
      async (tx) => {
        order.push(`${name} begins`);
        await raiseCounter(tx, 'fencing');
        store.afterCommit(tx, () => order.push(`${name} told`));
      },
      apart === undefined ? {} : { apart },
    );
  await Promise.all([change('a', 'x'), change('b', 'x'), change('c'), change('d', 'y')]);
  t.deepEqual(
    order,
    ['a', 'b', 'c', 'd'].flatMap((name) => [`${name} begins`, `${name} told`]),
  );
});

test('write - refuses what would wait for its own end, and nothing after it', async (t) => {
  const store = await openTestStore(t);
  const misuse = { code: 'ERR_INTERNAL' };
  await t.throwsAsync(
    store.write(() => store.db.selectFrom('users').selectAll().execute()),
    misuse,
  );
  await t.throwsAsync(
    store.write(() => store.write((tx) => raiseCounter(tx, 'fencing'))),
    misuse,
  );
  let later: Promise<unknown> | undefined;
  let told: Promise<unknown> | undefined;
  await store.write((tx) => {
    store.afterCommit(tx, () => {
      told = readCounter(store.db, 'fencing');
    });
    setImmediate(() => {
      later = readCounter(store.db, 'fencing');
    });
    return Promise.resolve();
  });
  await new Promise(setImmediate);
  t.is(await told, 0);
  t.is(await later, 0);
});

test('write - gives back rows in camelCase, numbers beyond 32 bits and null as they were', async (t) => {
  const store = await openTestStore(t);
  const user = await addUser(store, 'anna', { expiresAtMs: Number.MAX_SAFE_INTEGER });
  const row = await store.db.selectFrom('users').selectAll().executeTakeFirstOrThrow();
  t.deepEqual(row, user);
});

test('the store - keeps truth values as 0 and 1 and refuses what no engine stores', async (t) => {
  const store = await openTestStore(t);
  await addUser(store, 'anna', { disabled: true as never });
  const row = await store.db.selectFrom('users').selectAll().executeTakeFirstOrThrow();
  t.is(row.disabled, 1);
  await t.throwsAsync(addUser(store, 'ben', { role: {} as never }), { code: 'ERR_INTERNAL' });
  await t.throwsAsync(addUser(store, 'ben', { createdAtMs: NaN }), { code: 'ERR_INTERNAL' });
});

test('raiseCounterTo - never lowers a counter', async (t) => {
  const store = await openTestStore(t);
  t.is(await readCounter(store.db, 'bundleVersion'), 0);
  await store.write((tx) => raiseCounterTo(tx, 'bundleVersion', 7));
  await store.write((tx) => raiseCounterTo(tx, 'bundleVersion', 3));
  t.is(await readCounter(store.db, 'bundleVersion'), 7);
});

test('close - waits for what runs and is safe to call twice', async (t) => {
  const directory = temporaryDirectory(t);
  const store = await openStore({ directory, url: await testStoreUrl(t) });
  await Promise.all([addUser(store, 'anna'), addUser(store, 'ben')]);
  await Promise.all([store.close(), store.close()]);
  t.deepEqual(readdirSync(directory), store.engine === 'sqlite' ? ['store.sqlite'] : []);
});
