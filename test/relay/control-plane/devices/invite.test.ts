import { randomBytes } from 'node:crypto';
import ava from 'ava';
import { newId } from '../../../../protocol/index.ts';
import {
  claimInvite,
  createInvite,
  findInvite,
} from '../../../../relay/control-plane/devices/index.ts';
import { openTestStore, startMs, onEveryStore } from '../fixture.ts';
import type { Store } from '../../../../relay/control-plane/store/index.ts';

const test = onEveryStore(ava);

function invite(store: Store, uses?: number) {
  return store.write((tx) =>
    createInvite(tx, {
      kind: 'user',
      subject: newId('user'),
      expiresAtMs: startMs + 60_000,
      nowMs: startMs,
      ...(uses === undefined ? {} : { uses }),
    }),
  );
}

const claim = (store: Store, secret: Uint8Array, nowMs = startMs) =>
  store.write((tx) => claimInvite(tx, secret, nowMs));

test('claimInvite - lets exactly one of fifty at once win', async (t) => {
  const store = await openTestStore(t);
  const { secret, invite: row } = await invite(store);
  const results = await Promise.allSettled(Array.from({ length: 50 }, () => claim(store, secret)));
  const won = results.filter((result) => result.status === 'fulfilled');
  t.is(won.length, 1);
  t.is(won[0]?.value.id, row.id);
  for (const result of results) {
    if (result.status === 'rejected') t.like(result.reason, { code: 'ERR_IDENTITY_CODE_USED' });
  }
});

test('claimInvite - serves as often as it was made for', async (t) => {
  const store = await openTestStore(t);
  const { secret } = await invite(store, 3);
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => claim(store, secret)));
  t.is(results.filter((result) => result.status === 'fulfilled').length, 3);
});

test('claimInvite - keeps its use when the enrolment fails', async (t) => {
  const store = await openTestStore(t);
  const { secret } = await invite(store);
  await t.throwsAsync(
    store.write(async (tx) => {
      await claimInvite(tx, secret, startMs);
      throw new Error('enrolment failed');
    }),
    { message: 'enrolment failed' },
  );
  await t.notThrowsAsync(claim(store, secret));
});

test('claimInvite - refuses unknown, expired and revoked codes alike', async (t) => {
  const store = await openTestStore(t);
  const refused = { code: 'ERR_IDENTITY_CODE_REFUSED' };
  await t.throwsAsync(claim(store, randomBytes(16)), refused);
  const { secret, invite: row } = await invite(store);
  await t.throwsAsync(claim(store, secret, startMs + 60_000), refused);
  await store.write((tx) =>
    tx.updateTable('invites').set({ revoked: 1 }).where('id', '=', row.id).execute(),
  );
  await t.throwsAsync(claim(store, secret), refused);
});

test('createInvite - keeps no secret', async (t) => {
  const store = await openTestStore(t);
  const { secret, invite: row } = await invite(store);
  const kept = JSON.stringify(await store.db.selectFrom('invites').selectAll().execute());
  for (const encoding of ['hex', 'base64', 'base64url'] as const) {
    t.false(kept.includes(secret.toString(encoding)));
  }
  t.is((await store.write((tx) => findInvite(tx, secret)))?.id, row.id);
});
