import { copyFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import ava, { type ExecutionContext } from 'ava';
import { sql, type Kysely } from 'kysely';
import pg from 'pg';
import { newId } from '../../../../protocol/index.ts';
import { noFacts } from '../../../../relay/control-plane/store/fact-stamps.ts';
import {
  openStore,
  readFactStamps,
  type Store,
} from '../../../../relay/control-plane/store/index.ts';
import {
  addUser,
  onEveryStore,
  openTestStore,
  temporaryDirectory,
  testStoreUrl,
} from '../fixture.ts';

const test = onEveryStore(ava);

/** Tables by their names in SQL, of any store. */
type AnyTables = Kysely<Record<string, Record<string, unknown>>>;

type Row = Record<string, unknown>;

const common = { created_at_ms: 1 };
const identity = { signing_key: 'sign', noise_key: 'noise', ...certificate('1', 1) };

function certificate(serial: string, notAfter: number) {
  return { certificate_serial: serial, certificate_not_after_ms: notAfter };
}

/** Rows that others name; each table's own comes first. Those that decisions rest on are written out in full below. */
const parents: readonly (readonly [string, Row])[] = ['one', 'two'].flatMap(
  (n): [string, Row][] => [
    ['users', { id: `u-${n}`, name: `user ${n}`, ...common }],
    ['groups', { id: `g-${n}`, name: `group ${n}`, ...common }],
    ['sites', { id: `s-${n}`, name: `site ${n}`, ...common }],
    [
      'devices',
      {
        id: `d-${n}`,
        user_id: `u-${n}`,
        hostname: 'h',
        platform: 'linux',
        signing_key: `sign ${n}`,
        noise_key: `noise ${n}`,
        state: 'enrolled',
        ...common,
      },
    ],
  ],
);

interface Sample {
  readonly key: readonly string[];
  /** A row with every column of the table. */
  readonly row: Row;
  /** The same columns, each with another value. */
  readonly other: Row;
  /** Whom the stamp is about. */
  readonly subjects: (row: Row) => unknown;
  /** Columns that may change unheard. */
  readonly unheard?: readonly string[];
}

const samples: Readonly<Record<string, Sample>> = {
  users: {
    key: ['id'],
    row: {
      id: 'u',
      name: 'anna',
      role: null,
      disabled: 0,
      password_hash: null,
      expires_at_ms: null,
      created_at_ms: 1,
      kind: 'person',
      provider: null,
      subject: null,
      external_id: null,
      display_name: null,
      provisioned_by: null,
      disabled_by_json: '[]',
    },
    other: {
      id: 'v',
      name: 'ben',
      role: 'admin',
      disabled: 1,
      password_hash: 'x',
      expires_at_ms: 5,
      created_at_ms: 2,
      kind: 'service',
      provider: 'idp',
      subject: 's',
      external_id: 'e',
      display_name: 'Ben',
      provisioned_by: 'scim',
      disabled_by_json: '["admin"]',
    },
    subjects: (row) => row['id'],
  },
  groups: {
    key: ['id'],
    row: {
      id: 'g',
      name: 'staff',
      external_id: null,
      created_at_ms: 1,
      provisioned_by: null,
      display_name: null,
    },
    other: {
      id: 'h',
      name: 'guests',
      external_id: 'e',
      created_at_ms: 2,
      provisioned_by: 'scim',
      display_name: 'Guests',
    },
    subjects: () => '*',
  },
  memberships: {
    key: ['user_id', 'group_id'],
    row: { user_id: 'u-one', group_id: 'g-one', until_ms: null, created_at_ms: 1 },
    other: { user_id: 'u-two', group_id: 'g-two', until_ms: 9, created_at_ms: 2 },
    subjects: (row) => row['user_id'],
  },
  provided_memberships: {
    key: ['user_id', 'group_id', 'source'],
    row: { user_id: 'u-one', group_id: 'g-one', source: 'scim', created_at_ms: 1 },
    other: { user_id: 'u-two', group_id: 'g-two', source: 'provider idp', created_at_ms: 2 },
    subjects: (row) => row['user_id'],
  },
  sites: {
    key: ['id'],
    row: { id: 's', name: 'berlin', created_at_ms: 1 },
    other: { id: 't', name: 'paris', created_at_ms: 2 },
    subjects: () => '*',
  },
  apps: {
    key: ['id'],
    row: {
      id: 'a',
      name: 'wiki',
      site_id: 's-one',
      kind: 'tcp',
      port_hint: null,
      labels_json: '{}',
      created_at_ms: 1,
    },
    other: {
      id: 'b',
      name: 'mail',
      site_id: 's-two',
      kind: 'http',
      port_hint: 80,
      labels_json: '{"a":"b"}',
      created_at_ms: 2,
    },
    subjects: (row) => row['id'],
  },
  devices: {
    key: ['id'],
    row: {
      id: 'd',
      user_id: 'u-one',
      hostname: 'h',
      platform: 'linux',
      state: 'enrolled',
      last_seen_at_ms: 1,
      restricted_json: '[]',
      unhealthy: 0,
      ...identity,
      ...common,
    },
    other: {
      id: 'e',
      user_id: 'u-two',
      hostname: 'i',
      platform: 'win32',
      state: 'disabled',
      last_seen_at_ms: 2,
      restricted_json: '["x"]',
      unhealthy: 1,
      created_at_ms: 2,
      signing_key: 'sign2',
      noise_key: 'noise2',
      ...certificate('2', 2),
    },
    subjects: (row) => row['id'],
    unheard: ['last_seen_at_ms'],
  },
  sessions: {
    key: ['id'],
    row: {
      id: 'x',
      user_id: 'u-one',
      device_id: 'd-one',
      provider: 'local',
      methods_json: '[]',
      authenticated_at_ms: 1,
      created_at_ms: 1,
      last_seen_at_ms: 1,
      idle_ms: 1,
      absolute_end_at_ms: 9,
      ended_at_ms: null,
      end_reason: null,
      address: '',
      acr: '',
    },
    other: {
      id: 'y',
      user_id: 'u-two',
      device_id: 'd-two',
      provider: 'oidc',
      methods_json: '["totp"]',
      authenticated_at_ms: 2,
      created_at_ms: 2,
      last_seen_at_ms: 2,
      idle_ms: 2,
      absolute_end_at_ms: 8,
      ended_at_ms: 3,
      end_reason: 'x',
      address: '192.0.2.1',
      acr: 'phr',
    },
    subjects: (row) => row['user_id'],
    unheard: ['last_seen_at_ms'],
  },
  policies: {
    key: ['version'],
    row: { version: 1, texts_json: '{}', digest: 'a', actor: 'x', activated_at_ms: 1 },
    other: { version: 2, texts_json: '{"a":""}', digest: 'b', actor: 'y', activated_at_ms: 2 },
    subjects: () => '*',
  },
  postures: {
    key: ['device_id'],
    row: { device_id: 'd-one', facts_json: '{}', at_ms: 1 },
    other: { device_id: 'd-two', facts_json: '{"a":1}', at_ms: 2 },
    subjects: (row) => row['device_id'],
    unheard: ['at_ms'],
  },
  signal_marks: {
    key: ['stream', 'kind', 'subject_kind', 'subject_id'],
    row: {
      stream: 'a',
      kind: 'risk',
      subject_kind: 'user',
      subject_id: 'u',
      points: 1,
      active: 1,
      happened_at_ms: 1,
      until_ms: 2,
    },
    other: {
      stream: 'b',
      kind: 'device',
      subject_kind: 'device',
      subject_id: 'd',
      points: 2,
      active: 0,
      happened_at_ms: 2,
      until_ms: 3,
    },
    subjects: (row) => row['subject_id'],
  },
};

function tablesOf(store: Store): AnyTables {
  return store.db.withoutPlugins() as unknown as AnyTables;
}

/** The tables of the store with their columns. */
async function catalogOf(store: Store, schema: string | undefined): Promise<Map<string, string[]>> {
  const tables = await tablesOf(store).introspection.getTables({ withInternalKyselyTables: true });
  return new Map(
    tables
      .filter((table) => schema === undefined || table.schema === schema)
      .map(({ name, columns }) => [name, columns.map((column) => column.name)]),
  );
}

/** Whose stamps a change made others of; all of them are looked at. */
async function stampedBy(store: Store, change: (tx: AnyTables) => Promise<unknown>) {
  const read = async () => {
    const rows = await store.db.selectFrom('factStamps').selectAll().execute();
    return new Map(rows.map(({ subject, stamp }) => [subject, stamp]));
  };
  const before = await read();
  await store.write((tx) => change(tx.withoutPlugins() as unknown as AnyTables));
  const after = await read();
  return [...after.keys()].filter((subject) => after.get(subject) !== before.get(subject)).sort();
}

const schemaOf = (store: Store) => (store.engine === 'postgresql' ? 'ztna' : undefined);

test('fact stamps - every table of the schema is watched, or it is said why not', async (t) => {
  const store = await openTestStore(t);
  const catalog = await catalogOf(store, schemaOf(store));
  t.deepEqual(
    [...catalog.keys()].sort(),
    [...Object.keys(samples), ...Object.keys(noFacts)].sort(),
  );
  for (const [table, { row, other }] of Object.entries(samples)) {
    const columns = [...(catalog.get(table) ?? [])].sort();
    t.deepEqual(Object.keys(row).sort(), columns, table);
    t.deepEqual(Object.keys(other).sort(), columns, table);
  }
});

for (const [table, { key, row, other, subjects, unheard = [] }] of Object.entries(samples)) {
  test(`fact stamps - any change of ${table} is heard of, by those whom it is about`, async (t) => {
    const store = await openTestStore(t);
    await store.write(async (tx) => {
      for (const [name, parent] of parents) {
        await (tx.withoutPlugins() as unknown as AnyTables)
          .insertInto(name)
          .values(parent)
          .execute();
      }
    });
    const own = String(subjects(row));
    for (const column of Object.keys(row)) {
      const insert = (tx: AnyTables) => tx.insertInto(table).values(row).execute();
      t.deepEqual(await stampedBy(store, insert), [own], `insert before ${column}`);
      const now: Row = { ...row, [column]: other[column] };
      const update = (from: Row) => (tx: AnyTables) =>
        tx
          .updateTable(table)
          .set({ [column]: other[column] })
          .where((eb) => eb.and(key.map((name) => eb(name, '=', from[name]))))
          .execute();
      const expected = unheard.includes(column) ? [] : [own, String(subjects(now))];
      t.deepEqual(
        await stampedBy(store, update(row)),
        [...new Set(expected)].sort(),
        `update of ${column}`,
      );
      t.deepEqual(await stampedBy(store, update(now)), [], `${column} as it was`);
      const remove = (tx: AnyTables) =>
        tx
          .deleteFrom(table)
          .where((eb) => eb.and(key.map((name) => eb(name, '=', now[name]))))
          .execute();
      t.deepEqual(await stampedBy(store, remove), [String(subjects(now))], `delete: ${column}`);
    }
  });
}

test('fact stamps - a change that is rolled back leaves no stamp', async (t) => {
  const store = await openTestStore(t);
  const failing = stampedBy(store, async (tx) => {
    await tx.insertInto('groups').values({ id: 'g', name: 'staff', created_at_ms: 1 }).execute();
    throw new Error('rolled back');
  });
  await t.throwsAsync(failing, { message: 'rolled back' });
  t.is(await store.db.selectFrom('factStamps').selectAll().executeTakeFirst(), undefined);
});

test('fact stamps - a change that shares a commit is heard of, and one that fails there is not', async (t) => {
  const store = await openTestStore(t);
  const add = (id: string, isFailing = false) =>
    store.write(
      async (tx) => {
        const row = { id: id as never, name: id, createdAtMs: 1 };
        await tx.insertInto('sites').values(row).execute();
        await tx
          .updateTable('sites')
          .set({ name: `${id} site` })
          .execute();
        if (isFailing) throw new Error('fails');
      },
      { apart: id },
    );
  const [, failed] = await Promise.allSettled([add('a'), add('b', true)]);
  t.is(failed.status, 'rejected');
  t.truthy((await readFactStamps(store.db, [])).get('*'));
});

test('fact stamps - what somebody changes in another way than by the store is heard of', async (t) => {
  const directory = temporaryDirectory(t);
  const url = await testStoreUrl(t);
  const store = await openStore({ directory, url });
  t.teardown(() => store.close());
  const { id } = await addUser(store, 'anna');
  const before = (await readFactStamps(store.db, [id])).get(id);
  const statement = 'update users set disabled = 1';
  if (url === undefined) {
    const shell = new DatabaseSync(join(directory, 'store.sqlite'));
    shell.exec(statement);
    shell.close();
  } else {
    const shell = new pg.Client(url);
    await shell.connect();
    await shell.query(statement.replace('users', 'ztna.users')); // with a search path of its own
    await shell.end();
  }
  const after = (await readFactStamps(store.db, [id])).get(id);
  t.truthy(before);
  t.truthy(after);
  t.not(after, before);
});

test('fact stamps - changes of a table that nobody thought of concern everybody', async (t) => {
  const options = { directory: temporaryDirectory(t), url: await testStoreUrl(t) };
  const first = await openStore(options);
  await first.write((tx) => sql`create table later (id text primary key)`.execute(tx));
  await first.close();
  const store = await openStore(options);
  t.teardown(() => store.close());
  const add = (tx: AnyTables) => tx.insertInto('later').values({ id: 'x' }).execute();
  t.deepEqual(await stampedBy(store, add), ['*']);
  if (store.engine === 'sqlite') return; // it has no such statement
  t.deepEqual(await stampedBy(store, (tx) => sql`truncate later`.execute(tx)), ['*']);
});

test('fact stamps - a column that a later release adds is heard of', async (t) => {
  const options = { directory: temporaryDirectory(t), url: await testStoreUrl(t) };
  const first = await openStore(options);
  const { id } = await addUser(first, 'anna');
  await first.write((tx) => sql`alter table users add column clearance text`.execute(tx));
  await first.close();
  const store = await openStore(options);
  t.teardown(() => store.close());
  const set = (tx: AnyTables) => tx.updateTable('users').set({ clearance: 'x' }).execute();
  t.deepEqual(await stampedBy(store, set), [id]);
});

test('fact stamps - of two control planes each hears of the other', async (t) => {
  const url = await testStoreUrl(t);
  const first = await openTestStoreAt(t, url);
  const both = url === undefined ? [first] : [first, await openTestStoreAt(t, url)];
  const { id } = await addUser(first, 'anna');
  const seen = [(await readFactStamps(first.db, [id])).get(id)];
  await Promise.all(
    both.map((store, at) =>
      store.write((tx) =>
        tx
          .updateTable('users')
          .set({ expiresAtMs: at + 1 })
          .execute(),
      ),
    ),
  );
  for (const store of both) {
    await store.write((tx) => tx.updateTable('users').set({ disabled: 1 }).execute());
    await store.write((tx) => tx.updateTable('users').set({ disabled: 0 }).execute());
    for (const other of both) {
      const stamp = (await readFactStamps(other.db, [id])).get(id);
      if (other === both[0]) t.false(seen.includes(stamp));
      seen.push(stamp);
    }
    t.is(new Set(seen.slice(-both.length)).size, 1);
  }
});

test('fact stamps - what goes with a row that others rest on is heard of', async (t) => {
  const store = await openTestStore(t);
  const { id } = await addUser(store, 'anna');
  const group = { id: newId('group'), name: 'staff', createdAtMs: 1 };
  await store.write(async (tx) => {
    await tx.insertInto('groups').values(group).execute();
    const row = { userId: id, groupId: group.id, untilMs: null, createdAtMs: 1 };
    await tx.insertInto('memberships').values(row).execute();
  });
  const remove = (tx: AnyTables) => tx.deleteFrom('groups').where('id', '=', group.id).execute();
  t.deepEqual(await stampedBy(store, remove), ['*', id]);
});

ava('fact stamps - of a restored backup never come again', async (t) => {
  const directory = temporaryDirectory(t);
  const backup = temporaryDirectory(t);
  const copy = (from: string, to: string) => {
    for (const file of readdirSync(from).filter((name) => name.startsWith('store.sqlite'))) {
      copyFileSync(join(from, file), join(to, file));
    }
  };
  const seen = new Set<string>();
  const addOne = async (name: string) => {
    const store = await openStore({ directory });
    const { id } = await addUser(store, name);
    await store.write((tx) => tx.insertInto('sites').values(siteOf(name)).execute());
    for (const stamp of (await readFactStamps(store.db, [id])).values()) {
      t.false(seen.has(stamp));
      seen.add(stamp);
    }
    await store.close();
  };
  await addOne('anna');
  copy(directory, backup);
  await addOne('ben');
  copy(backup, directory);
  await addOne('ben');
  t.is(seen.size, 6);
});

function siteOf(name: string) {
  return { id: newId('site'), name, createdAtMs: 1 };
}

async function openTestStoreAt(t: ExecutionContext, url: string | undefined): Promise<Store> {
  const store = await openStore({ directory: temporaryDirectory(t), url });
  t.teardown(() => store.close());
  return store;
}
