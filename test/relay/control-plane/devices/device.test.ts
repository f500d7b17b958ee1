import ava from 'ava';
import { newId } from '../../../../protocol/index.ts';
import { addConnector } from '../../../../relay/control-plane/devices/index.ts';
import {
  addUser,
  enrolDevice,
  freshKey,
  openTestStore,
  startMs,
  onEveryStore,
} from '../fixture.ts';
import type { Store } from '../../../../relay/control-plane/store/index.ts';

const test = onEveryStore(ava);

async function addSite(store: Store) {
  const id = newId('site');
  await store.write((tx) =>
    tx.insertInto('sites').values({ id, name: 'berlin', createdAtMs: startMs }).execute(),
  );
  return id;
}

test('addDevice - stops at the limit of its user, which revoked devices do not count in', async (t) => {
  const store = await openTestStore(t);
  const user = await addUser(store, 'anna');
  const first = await enrolDevice(store, user.id, 2);
  await enrolDevice(store, user.id, 2);
  await t.throwsAsync(enrolDevice(store, user.id, 2), { code: 'ERR_LIMIT_DEVICES' });
  await store.write((tx) =>
    tx.updateTable('devices').set({ state: 'revoked' }).where('id', '=', first.id).execute(),
  );
  await t.notThrowsAsync(enrolDevice(store, user.id, 2));
});

test('addDevice - holds the limit among many at once', async (t) => {
  const store = await openTestStore(t);
  const user = await addUser(store, 'anna');
  const results = await Promise.allSettled(
    Array.from({ length: 20 }, () => enrolDevice(store, user.id, 3)),
  );
  t.is(results.filter((result) => result.status === 'fulfilled').length, 3);
});

test('addConnector - refuses a key that anything has enrolled, in any state', async (t) => {
  const store = await openTestStore(t);
  const user = await addUser(store, 'anna');
  const siteId = await addSite(store);
  const device = await enrolDevice(store, user.id);
  await store.write((tx) =>
    tx.updateTable('devices').set({ state: 'revoked' }).where('id', '=', device.id).execute(),
  );
  const add = (keys: { signingKey: string; noiseKey: string }) =>
    store.write((tx) => addConnector(tx, { name: 'c1', siteId, ...keys, nowMs: startMs }));
  const refused = { code: 'ERR_IDENTITY_KEY_REFUSED' };
  await t.throwsAsync(add({ signingKey: device.signingKey, noiseKey: freshKey() }), refused);
  await t.throwsAsync(add({ signingKey: freshKey(), noiseKey: device.noiseKey }), refused);
  const own = { signingKey: freshKey(), noiseKey: freshKey() };
  t.is((await add(own)).state, 'enrolled');
  await t.throwsAsync(add(own), refused);
});
