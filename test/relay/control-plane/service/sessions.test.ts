import anyTest, { type TestFn } from 'ava';
import type { DeviceId, SessionId, UserId } from '../../../../protocol/index.ts';
import { Rig, staffPolicy } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig }>;

test.before('a control plane with a provider', async (t) => {
  const rig = await Rig.start();
  await rig.admin('policy.apply', { files: staffPolicy });
  const settings = { issuer: 'https://idp.example.com', clientId: 'ztna', title: 'Idp' };
  const provider = {
    name: 'idp',
    settingsJson: JSON.stringify({ ...settings, scopes: ['openid'] }),
    sealedSecret: null,
    createdAtMs: 1,
  };
  const { store } = rig.plane.services;
  await store.write((tx) => tx.insertInto('providers').values(provider).execute());
  t.context.rig = rig;
});

test.after.always('stop', async (t) => {
  await (t.context.rig as Rig | undefined)?.stop();
});

type Session = Record<string, unknown> & { id: SessionId; device: DeviceId };

test.serial('session - list and show tell where, how, and since when', async (t) => {
  const { rig } = t.context;
  const device = await rig.device('ada');
  await rig.device('ben');
  const rows = await rig.admin<Session[]>('session.list', { user: 'ada' });
  t.is(rows.length, 1);
  const [row] = rows;
  t.like(row, {
    user: 'ada',
    kind: 'person',
    device: device.identity.id,
    hostname: 'ada-laptop',
    provider: 'local',
    methods: ['password'],
    acr: null,
    address: '203.0.113.7',
    state: 'live',
    providerCheck: null,
  });
  t.true(Number(row?.['ageSeconds']) >= 0);
  t.true(Number(row?.['untilMs']) <= Number(row?.['absoluteUntilMs']));
  t.is((await rig.admin<Session[]>('session.list')).length, 2);
  await t.throwsAsync(rig.admin('session.list', { user: 'nobody' }));
});

test.serial('session - a provider that cannot be asked is shown as that', async (t) => {
  const { rig } = t.context;
  await rig.device('cleo');
  const [row] = await rig.admin<Session[]>('session.list', { user: 'cleo' });
  if (!row) throw new Error('no session');
  const { store, clock } = rig.plane.services;
  const nowMs = clock.nowMs();
  const { id: userId } = await rig.admin<{ id: UserId }>('user.show', { name: 'cleo' });
  const grant = {
    ...{ sessionId: row.id, userId, provider: 'idp', subject: 's', sid: null, sealedTokens: '' },
    ...{ nextCheckAtMs: nowMs + 600_000, lastOkAtMs: nowMs - 5, unreachableSinceMs: null },
    lastError: null,
  };
  await store.write((tx) => tx.insertInto('providerGrants').values(grant).execute());
  const check = async () =>
    (await rig.admin<Session>('session.show', { id: row.id }))['providerCheck'];
  t.like(await check(), { state: 'ok', lastOkAtMs: nowMs - 5 });
  const away = { unreachableSinceMs: nowMs, lastError: 'outside_timeout' };
  await store.write((tx) => tx.updateTable('providerGrants').set(away).execute());
  t.like(await check(), { state: 'unreachable', ...away });
});

test.serial('user - is added for a provider, linked to one, and shown with its kind', async (t) => {
  const { rig } = t.context;
  await rig.admin('user.add', { name: 'dan', provider: 'idp' });
  t.like(await rig.admin('user.show', { name: 'dan' }), {
    kind: 'person',
    provider: 'idp',
    subject: null,
    provisionedBy: null,
  });
  const password = 'a-password-that-is-long';
  await t.throwsAsync(rig.admin('user.add', { name: 'eve', provider: 'idp', password }));
  const refused = await t.throwsAsync(rig.admin('user.set', { name: 'dan', password }));
  t.regex(refused.message, /has no password here/);
  await t.throwsAsync(rig.admin('user.add', { name: 'eve', provider: 'none' }));

  const device = await rig.device('fay');
  const { store } = rig.plane.services;
  const { id: userId } = await rig.admin<{ id: UserId }>('user.show', { name: 'fay' });
  const passkey = {
    ...{ id: 'pk', userId, name: 'key', publicKey: '', counter: 0, transportsJson: '[]' },
    ...{ backedUp: 0 as const, createdAtMs: 1, lastUsedAtMs: null },
  };
  await store.write((tx) => tx.insertInto('passkeys').values(passkey).execute());
  await rig.admin('user.link', { name: 'fay', provider: 'idp', subject: 'sub-1', scim: true });
  t.is(
    await device.find((one) => (one.type === 'session_ended' ? one.reason : undefined)),
    'user_linked',
  );
  t.like(await rig.admin('user.show', { name: 'fay' }), {
    provider: 'idp',
    subject: 'sub-1',
    hasPassword: false,
    provisionedBy: 'scim idp',
  });
  t.deepEqual(await store.db.selectFrom('passkeys').selectAll().execute(), []);
  await t.throwsAsync(rig.admin('user.link', { name: 'dan', provider: 'idp', subject: 'sub-1' }));
  await t.throwsAsync(rig.admin('user.link', { name: 'dan' }));
  const users = await rig.admin<Record<string, unknown>[]>('user.list');
  t.like(
    users.find(({ name }) => name === 'dan'),
    { kind: 'person', provider: 'idp' },
  );
});
