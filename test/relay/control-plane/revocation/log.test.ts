import ava from 'ava';
import { newId, type RevocationEntry } from '../../../../protocol/index.ts';
import { openRevocationLog } from '../../../../relay/control-plane/revocation/index.ts';
import { openTestStore, TestClock, onEveryStore } from '../fixture.ts';

const test = onEveryStore(ava);

const revokeUser = () => ({
  action: 'revoke' as const,
  subject: { kind: 'user' as const, id: newId('user') },
  reason: 'user_disabled',
});

test('append - numbers entries in the order of their commits', async (t) => {
  const store = await openTestStore(t);
  const log = await openRevocationLog(store, new TestClock());
  t.deepEqual(await log.head(store.db), { incarnation: 1, position: 0 });
  const heard: RevocationEntry[] = [];
  log.onAppend((entry) => heard.push(entry));
  await Promise.all(
    Array.from({ length: 20 }, () => store.write((tx) => log.append(tx, revokeUser()))),
  );
  const entries = await log.since(store.db, 0);
  t.deepEqual(
    entries.map((entry) => entry.position),
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
  t.deepEqual(heard, entries);
  t.deepEqual(await log.head(store.db), { incarnation: 1, position: 20 });
});

test('append - leaves no gap and tells nobody when its change is undone', async (t) => {
  const store = await openTestStore(t);
  const log = await openRevocationLog(store, new TestClock());
  let heard = 0;
  log.onAppend(() => heard++);
  await t.throwsAsync(
    store.write(async (tx) => {
      await log.append(tx, revokeUser());
      throw new Error('no');
    }),
  );
  t.is(heard, 0);
  const entry = await store.write((tx) => log.append(tx, revokeUser()));
  t.is(entry.position, 1);
});

test('since - gives what comes after a position, a batch at a time', async (t) => {
  const store = await openTestStore(t);
  const log = await openRevocationLog(store, new TestClock());
  const added: RevocationEntry[] = [];
  for (let i = 0; i < 5; i++) {
    added.push(await store.write((tx) => log.append(tx, revokeUser())));
  }
  t.deepEqual(await log.since(store.db, 2, 2), added.slice(2, 4));
  t.deepEqual(await log.since(store.db, 5), []);
});

test('raiseIncarnation - begins the log anew and outlives a restart', async (t) => {
  const store = await openTestStore(t);
  const log = await openRevocationLog(store, new TestClock());
  await store.write((tx) => log.append(tx, revokeUser()));
  t.is(await store.write((tx) => log.raiseIncarnation(tx)), 2);
  t.deepEqual(await log.since(store.db, 0), []);
  const again = await openRevocationLog(store, new TestClock());
  t.deepEqual(await again.head(store.db), { incarnation: 2, position: 0 });
  const entry = await store.write((tx) => again.append(tx, revokeUser()));
  t.is(entry.position, 1);
});
