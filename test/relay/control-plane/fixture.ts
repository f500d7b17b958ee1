import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newId, type UserId } from '../../../protocol/index.ts';
import { addDevice } from '../../../relay/control-plane/devices/index.ts';
import { openStore } from '../../../relay/control-plane/store/index.ts';
import type { ExecutionContext, TestFn } from 'ava';
import pg from 'pg';
import { missingServer } from '../../support/postgresql.ts';
import {
  sharedPostgresPort,
  stopOwnPostgres,
  storeTemplate,
} from '../../support/shared-postgresql.ts';
import type { Device, Store, User } from '../../../relay/control-plane/store/index.ts';

export const startMs = 1_900_000_000_000;

/** A clock that tests move by hand. */
export class TestClock {
  #nowMs = startMs;

  nowMs(): number {
    return this.#nowMs;
  }

  advance(ms: number): void {
    this.#nowMs += ms;
  }
}

/** A directory of the test's own, gone when it ends. */
export function temporaryDirectory(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'ztna-control-'));
  t.teardown(() => {
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}

const onPostgres = ' (on PostgreSQL)';

/**
 * Declares each test twice, on SQLite and on PostgreSQL; what it opens by `openTestStore` or `testStoreUrl` is of
 * that engine. Without a PostgreSQL server the second one is skipped, and says why.
 */
export function onEveryStore<C>(test: TestFn<C>): Declare<C> & { readonly serial: Declare<C> } {
  test.after.always('stop PostgreSQL', () => stopOwnPostgres());
  const missing = missingServer();
  const twice =
    (declare: Declare<C>, skip: Declare<C>): Declare<C> =>
    (title, implementation) => {
      declare(title, implementation);
      if (missing === undefined) declare(`${title}${onPostgres}`, implementation);
      else skip(`${title}${onPostgres}: ${missing}`, implementation);
    };
  return Object.assign(twice(test, test.skip), { serial: twice(test.serial, test.serial.skip) });
}

type Declare<C> = (
  title: string,
  implementation: (t: ExecutionContext<C>) => void | Promise<void>,
) => void;

/** What a new database holds: a store without rows, or nothing, not even its schema. */
export type Contents = 'store' | 'nothing';

/** The URL of a PostgreSQL store without rows for a test that was declared for one, in hooks too; else undefined. */
export async function testStoreUrl(
  t: ExecutionContext,
  contents?: Contents,
): Promise<string | undefined> {
  return t.title.includes(onPostgres) ? newPostgresUrl(t, contents) : undefined;
}

/** The URL of a new database, which is dropped when the test ends. */
export async function newPostgresUrl(t: ExecutionContext, contents?: Contents): Promise<string> {
  const { url, drop } = await newPostgresDatabase(contents);
  t.teardown(drop);
  return url;
}

/** The engine of what a whole file starts; `on-postgresql.ts` changes it. */
export const fileEngine = { isPostgres: false };

/** The URL of a new database, and how to drop it. */
export async function newPostgresDatabase(
  contents: Contents = 'store',
): Promise<{ url: string; drop: () => Promise<void> }> {
  const port = await sharedPostgresPort();
  const name = `t${randomBytes(8).toString('hex')}`;
  const server = `postgres://ztna@127.0.0.1:${String(port)}`;
  const run = async (statement: string) => {
    const client = new pg.Client(`${server}/postgres`);
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  };
  const template = contents === 'store' ? storeTemplate : 'template0';
  await run(`create database ${name} template ${template}`);
  return {
    url: `${server}/${name}`,
    drop: () => run(`drop database if exists ${name} with (force)`),
  };
}

/** An empty store, closed when the test ends. */
export async function openTestStore(t: ExecutionContext): Promise<Store> {
  const url = await testStoreUrl(t);
  const store = await openStore({ directory: temporaryDirectory(t), url, isPatient: true });
  t.teardown(() => store.close());
  return store;
}

export async function addUser(store: Store, name: string, row: Partial<User> = {}): Promise<User> {
  const user: User = {
    id: newId('user'),
    name,
    role: null,
    disabled: 0,
    passwordHash: null,
    expiresAtMs: null,
    createdAtMs: startMs,
    kind: 'person',
    provider: null,
    subject: null,
    externalId: null,
    displayName: null,
    provisionedBy: null,
    disabledByJson: '[]',
    ...row,
  };
  await store.write((tx) => tx.insertInto('users').values(user).execute());
  return user;
}

let keys = 0;

/** A text that is no key but, like one, differs each time. */
export function freshKey(): string {
  keys += 1;
  return `key-${String(keys)}`;
}

export function enrolDevice(store: Store, userId: UserId, maxPerUser = 10): Promise<Device> {
  return store.write((tx) =>
    addDevice(tx, {
      userId,
      hostname: 'laptop',
      platform: 'linux',
      signingKey: freshKey(),
      noiseKey: freshKey(),
      state: 'enrolled',
      maxPerUser,
      nowMs: startMs,
    }),
  );
}
