import { mkdtempSync, rmSync, chmodSync, writeFileSync } from 'node:fs';
import { createServer, connect, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ava, { type ExecutionContext } from 'ava';
import pg from 'pg';
import { createLogger } from '../../../../protocol/host/index.ts';
import {
  openStore,
  raiseCounter,
  readCounter,
  type Store,
} from '../../../../relay/control-plane/store/index.ts';
import { readPostgresUrl } from '../../../../relay/control-plane/store/postgres-url.ts';
import { missingServer } from '../../../support/postgresql.ts';
import { stopOwnPostgres } from '../../../support/shared-postgresql.ts';
import { addUser, newPostgresUrl, temporaryDirectory } from '../fixture.ts';

const missing = missingServer();
const test: (title: string, body: (t: ExecutionContext) => Promise<void>) => void = (
  title,
  body,
) => {
  if (missing === undefined) ava(title, body);
  else ava.skip(`${title}: ${missing}`, body);
};
ava.after.always('stop PostgreSQL', () => stopOwnPostgres());

async function open(t: ExecutionContext, url: string, lines: string[] = []): Promise<Store> {
  const logger = createLogger({
    program: 'test',
    level: 'debug',
    write: (line) => lines.push(line),
  });
  const store = await openStore({ directory: temporaryDirectory(t), url, logger, isPatient: true });
  t.teardown(() => store.close());
  return store;
}

/** Resolves with the first announcement that `wanted` holds for. */
function heard(store: Store, wanted: (topic: string | null) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const stop = store.onAnnounced((topic) => {
      if (!wanted(topic)) return;
      stop();
      resolve();
    });
  });
}

const announceRevocation = (store: Store) =>
  store.write((tx) => {
    store.announce(tx, 'revocation');
    return Promise.resolve();
  });

test('announce - wakes the other processes on the store, and not the one that announces', async (t) => {
  const url = await newPostgresUrl(t);
  const [here, there] = [await open(t, url), await open(t, url)];
  let own = 0;
  here.onAnnounced((topic) => {
    if (topic === 'revocation') own++;
  });
  await heard(there, (topic) => topic === null); // it listens, or it polls
  // What was announced before it listened is lost: so until it hears.
  const arrived = heard(there, (topic) => topic === 'revocation');
  let isOver = false;
  void arrived.then(() => (isOver = true));
  while (!isOver) await announceRevocation(here);
  t.is(own, 0);
});

test('announce - is heard again after the connection that listens was cut', async (t) => {
  const url = await newPostgresUrl(t);
  const [here, there] = [await open(t, url), await open(t, url)];
  for (let round = 0; round < 2; round++) {
    const arrived = heard(there, (topic) => topic === 'revocation');
    let isOver = false;
    void arrived.then(() => (isOver = true));
    while (!isOver) await announceRevocation(here);
    const admin = new pg.Client(url);
    await admin.connect();
    const { rowCount } = await admin.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and query in ('listen "ztna_ztna"', 'select 1')`,
    );
    await admin.end();
    t.true((rowCount ?? 0) >= 1);
  }
});

test('lockShared - holders exclude those of lockOrder, and not each other', async (t) => {
  const url = await newPostgresUrl(t);
  const [a, b, c] = [await open(t, url), await open(t, url), await open(t, url)];
  const order: string[] = [];
  const bothHold = Promise.withResolvers<undefined>();
  let holding = 0;
  const share = (store: Store, name: string) =>
    store.write(async (tx) => {
      await store.lockShared(tx, 'revocation');
      order.push(`${name} holds`);
      if (++holding === 2) bothHold.resolve(undefined);
      await bothHold.promise; // only if both can hold it at once
      order.push(`${name} ends`);
    });
  const shared = [share(a, 'a'), share(b, 'b')];
  await bothHold.promise;
  const alone = c.write(async (tx) => {
    await c.lockOrder(tx, 'revocation');
    order.push('c holds');
  });
  await Promise.all([...shared, alone]);
  t.is(order.at(-1), 'c holds');
});

test('write - appends of two processes under one order follow each other', async (t) => {
  const url = await newPostgresUrl(t);
  const stores = [await open(t, url), await open(t, url)];
  await Promise.all(
    stores.flatMap((store) =>
      Array.from({ length: 20 }, () => store.write((tx) => raiseCounter(tx, 'fencing'))),
    ),
  );
  const [first] = stores;
  const row = await first?.db.selectFrom('meta').selectAll().executeTakeFirst();
  t.is(row?.value, '40');
});

test('write - of two transactions that wait for each other one is tried again', async (t) => {
  const url = await newPostgresUrl(t);
  const [a, b] = [await open(t, url), await open(t, url)];
  const both = Promise.withResolvers<undefined>();
  let begun = 0;
  let runs = 0;
  const cross = (store: Store, first: 'user:1' | 'user:2', second: 'user:1' | 'user:2') =>
    store.write(async (tx) => {
      runs += 1;
      await store.lockOrder(tx, first);
      if (++begun === 2) both.resolve(undefined);
      await both.promise;
      await store.lockOrder(tx, second);
    });
  await Promise.all([cross(a, 'user:1', 'user:2'), cross(b, 'user:2', 'user:1')]);
  t.true(runs > 2);
});

/** Stands between a store and its server: cuts what there is, and refuses what comes, or lets it hang. */
class Way {
  readonly #sockets = new Set<Socket>();
  #server!: Server;
  mode: 'open' | 'refusing' | 'hanging' = 'open';
  port = 0;

  static async to(port: number): Promise<Way> {
    const way = new Way();
    way.#server = createServer((client) => {
      way.#sockets.add(client);
      client.on('error', () => undefined);
      if (way.mode === 'refusing') client.destroy();
      if (way.mode !== 'open') return;
      const server = connect(port, '127.0.0.1');
      way.#sockets.add(server);
      server.on('error', () => client.destroy());
      client.pipe(server).pipe(client);
      client.once('close', () => server.destroy());
      server.once('close', () => client.destroy());
    });
    await new Promise<void>((resolve) => way.#server.listen(0, '127.0.0.1', resolve));
    const address = way.#server.address();
    way.port = typeof address === 'object' && address ? address.port : 0;
    return way;
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  stop(): void {
    this.#server.close();
    this.cut();
  }
}

async function openBehindWay(t: ExecutionContext, lines: string[]) {
  const direct = new URL(await newPostgresUrl(t));
  const way = await Way.to(Number(direct.port));
  t.teardown(() => {
    way.stop();
  });
  direct.port = String(way.port);
  return { way, url: direct.href, store: await open(t, direct.href, lines) };
}

test('write - fails at once while the store is away, by code and reason, and works when it is back', async (t) => {
  const lines: string[] = [];
  const { way, store } = await openBehindWay(t, lines);
  await addUser(store, 'anna');
  const unavailable = { code: 'ERR_RELAY_UNAVAILABLE', message: /store/ };
  way.mode = 'refusing';
  way.cut();
  const error = await t.throwsAsync(addUser(store, 'ben'), unavailable);
  t.is((error as unknown as { reason: string }).reason, 'store_unavailable');
  await t.throwsAsync(store.db.selectFrom('users').selectAll().execute(), unavailable);
  while (store.isAvailable) await new Promise(setImmediate);
  await Promise.all(
    Array.from({ length: 100 }, () => t.throwsAsync(addUser(store, 'carl'), unavailable)),
  );
  const back = new Promise<void>((resolve) => store.onAvailable(resolve));
  way.mode = 'open';
  await back;
  await addUser(store, 'dora');
  const users = await store.db.selectFrom('users').select('name').orderBy('name').execute();
  t.deepEqual(
    users.map(({ name }) => name),
    ['anna', 'dora'],
  );
  const told = lines.filter((line) => /"store_(?:un)?available"/.test(line));
  t.is(told.length, 2, told.join(''));
});

test('openStore - waits for a store that is away, if told to, and says so', async (t) => {
  const direct = new URL(await newPostgresUrl(t, 'nothing'));
  const way = await Way.to(Number(direct.port));
  t.teardown(() => {
    way.stop();
  });
  direct.port = String(way.port);
  way.mode = 'refusing';
  const impatient = openStore({ directory: temporaryDirectory(t), url: direct.href });
  await t.throwsAsync(impatient, { code: 'ERR_RELAY_UNAVAILABLE' });
  const lines: string[] = [];
  const opening = open(t, direct.href, lines);
  while (!lines.some((line) => line.includes('store_unavailable'))) {
    await new Promise(setImmediate);
  }
  way.mode = 'open';
  await addUser(await opening, 'anna');
  t.true(lines.some((line) => line.includes('store_available')));
});

test('openStore - refuses a schema that a newer release has changed', async (t) => {
  const url = await newPostgresUrl(t);
  const store = await open(t, url);
  await store.close();
  const client = new pg.Client(url);
  await client.connect();
  await client.query(
    `insert into ztna.kysely_migration (name, timestamp) values ('9999_future', '2030')`,
  );
  await client.end();
  await t.throwsAsync(openStore({ directory: temporaryDirectory(t), url, isPatient: true }), {
    code: 'ERR_CONFIG_INVALID',
  });
});

test('openStore - several processes at once make the schema once', async (t) => {
  const url = await newPostgresUrl(t, 'nothing');
  const stores = await Promise.all([open(t, url), open(t, url), open(t, url)]);
  for (const [index, store] of stores.entries()) await addUser(store, `user${String(index)}`);
  t.pass();
});

test('readClockMs - is the server\u2019s', async (t) => {
  const store = await open(t, await newPostgresUrl(t));
  const beforeMs = Date.now();
  const nowMs = (await store.readClockMs()) ?? 0;
  t.true(nowMs >= beforeMs - 1 && nowMs <= Date.now() + 1);
});

test('write - sees what the one before wrote who held the lock, whatever is usual in the database', async (t) => {
  const url = await newPostgresUrl(t);
  const { connection } = await readPostgresUrl(url);
  const admin = new pg.Client({ ...connection, options: '' });
  await admin.connect();
  const database = admin.escapeIdentifier(String(connection.database));
  const usual = (level: string) =>
    admin.query(`alter database ${database} set default_transaction_isolation to '${level}'`);
  await usual('repeatable read');
  t.teardown(async () => {
    await admin.query(`alter database ${database} reset default_transaction_isolation`);
    await admin.end();
  });
  const [here, there] = [await open(t, url), await open(t, url)];
  const locked = Promise.withResolvers<undefined>();
  const first = here.write(async (tx) => {
    await here.lockOrder(tx, 'revocation');
    locked.resolve(undefined);
    for (;;) {
      const { rows } = await admin.query(
        "select 1 from pg_locks where locktype = 'advisory' and not granted",
      );
      if (rows.length > 0) break;
    }
    await raiseCounter(tx, 'fencing');
  });
  await locked.promise;
  const seen = await there.write(async (tx) => {
    await there.lockShared(tx, 'revocation');
    return readCounter(tx, 'fencing');
  });
  await first;
  t.is(seen, await readCounter(here.db, 'fencing'));
});

ava(
  'readPostgresUrl - verifies the server unless it is on this machine or told not to',
  async (t) => {
    const tlsOf = async (text: string) => (await readPostgresUrl(text)).connection.ssl;
    t.is(await tlsOf('postgres://u@127.0.0.1/d'), false);
    t.is(await tlsOf('postgres://u@localhost/d?host=/run/postgresql'), false);
    t.like(await tlsOf('postgres://u@db.example.com/d'), { rejectUnauthorized: true });
    t.like(await tlsOf('postgres://u@127.example.com/d'), { rejectUnauthorized: true });
    t.is(await tlsOf('postgres://u@db.example.com/d?sslmode=disable'), false);
    for (const mode of ['require', 'prefer', 'allow', 'no-verify']) {
      await t.throwsAsync(tlsOf(`postgres://u@db.example.com/d?sslmode=${mode}`), {
        code: 'ERR_CONFIG_INVALID',
      });
    }
  },
);

ava(
  'readPostgresUrl - repeats no password, and reads one from a file that is its owner\u2019s alone',
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'ztna-url-'));
    t.teardown(() => {
      rmSync(dir, { recursive: true });
    });
    const file = join(dir, 'password');
    writeFileSync(file, 'from a file\n', { mode: 0o600 });
    const { connection, label } = await readPostgresUrl(
      `postgres://u@db.example.com:6000/d?passwordfile=${file}`,
    );
    t.is(connection.password, 'from a file');
    t.is(label, 'db.example.com:6000/d');
    chmodSync(file, 0o644);
    await t.throwsAsync(readPostgresUrl(`postgres://u@db.example.com/d?passwordfile=${file}`), {
      code: 'ERR_CONFIG_PERMISSIONS',
    });
    for (const wrong of [
      'postgres://u:hidden@db/d?sslmod=disable',
      'postgres://u:hidden@db',
      'postgres://u:hidden@db/d?schema=A"b',
      'postgres://u:hid%den@db/d',
      'postgres://u:hidden@db:99999/d',
    ]) {
      const error = await t.throwsAsync(readPostgresUrl(wrong), { code: 'ERR_CONFIG_INVALID' });
      t.notRegex(JSON.stringify([error, error.message, error.cause]), /hid/);
    }
  },
);
