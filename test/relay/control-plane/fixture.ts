import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newId, type UserId } from '../../../protocol/index.ts';
import { addDevice } from '../../../relay/control-plane/devices/index.ts';
import { openStore } from '../../../relay/control-plane/store/index.ts';
import type { ExecutionContext } from 'ava';
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

/** An empty store, closed when the test ends. */
export async function openTestStore(t: ExecutionContext): Promise<Store> {
  const store = await openStore({ directory: temporaryDirectory(t) });
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
