import anyTest, { type TestFn } from 'ava';
import { URI } from 'otpauth';
import {
  addPasskey,
  makeRecoveryCodes,
  startBrowserSession,
} from '../../../../relay/control-plane/identity/index.ts';
import type { UserId } from '../../../../protocol/index.ts';
import { Rig, password, staffPolicy, type DevicePeer } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig }>;

test.before(async (t) => {
  t.context.rig = await Rig.start();
  await t.context.rig.admin('policy.apply', { files: staffPolicy });
});
test.after.always(async (t) => {
  await t.context.rig.stop();
});

function signIn(device: DevicePeer, user: string, secret: string) {
  return device.channel.request({ type: 'sign_in', user, password: secret, otp: null });
}

async function hasSession(device: DevicePeer): Promise<boolean> {
  const answer = await device.channel.request({ type: 'status' });
  return answer.type === 'status' && answer.session !== null;
}

async function idOf(rig: Rig, name: string): Promise<UserId> {
  return (await rig.admin<{ id: UserId }>('user.show', { name })).id;
}

/** A browser that the user is signed in with. */
async function openBrowser(rig: Rig, userId: UserId): Promise<void> {
  const { store, clock } = rig.plane.services;
  const proof = { user: userId, provider: 'local', methods: ['passkey'] };
  const from = { address: '192.0.2.1', nowMs: clock.nowMs() };
  await store.write((tx) => startBrowserSession(tx, proof, from));
}

async function countOf(
  rig: Rig,
  table: 'passkeys' | 'recoveryCodes' | 'browserSessions',
  userId: UserId,
): Promise<number> {
  const { db } = rig.plane.services.store;
  const rows = await db.selectFrom(table).select('userId').where('userId', '=', userId).execute();
  return rows.length;
}

test.serial(
  'user set --reset-passkeys - forgets passkeys and recovery codes and signs out of all browsers, of this user alone, on record',
  async (t) => {
    const { rig } = t.context;
    const { store } = rig.plane.services;
    const tables = ['passkeys', 'recoveryCodes', 'browserSessions'] as const;
    const users = { carol: '', dave: '' } as Record<'carol' | 'dave', UserId>;
    const device = await rig.device('carol');
    await rig.device('dave');
    for (const name of ['carol', 'dave'] as const) {
      const userId = (users[name] = await idOf(rig, name));
      await store.write(async (tx) => {
        await addPasskey(tx, {
          ...{ id: `pk-${name}`, userId, name: 'key', publicKey: '', counter: 0 },
          ...{ transportsJson: '[]', backedUp: 0 as const, createdAtMs: 1 },
        });
        await makeRecoveryCodes(tx, userId, 1);
      });
      await openBrowser(rig, userId);
    }
    const counts = (userId: UserId) =>
      Promise.all(tables.map((table) => countOf(rig, table, userId)));
    t.deepEqual(await counts(users.carol), [1, 10, 1]);

    await rig.admin('user.set', { name: 'carol', groups: [], resetPasskeys: true });
    t.deepEqual(await counts(users.carol), [0, 0, 0]);
    t.deepEqual(await counts(users.dave), [1, 10, 1]);
    t.true(await hasSession(device));
    const [record] = (await rig.plane.services.audit.read({ user: 'carol' })).filter(
      ({ action }) => action === 'user.set',
    );
    const told = JSON.parse(record?.detailsJson ?? '') as object;
    t.like(told, { resetPasskeys: true, passkeysRemoved: 1, resetOtp: false, password: false });
  },
);

test.serial(
  'user set - signs out of all browsers with a new password, and else of none',
  async (t) => {
    const { rig } = t.context;
    await rig.device('erin');
    const userId = await idOf(rig, 'erin');
    await openBrowser(rig, userId);
    await rig.admin('user.set', { name: 'erin', groups: ['more'], resetOtp: true });
    t.is(await countOf(rig, 'browserSessions', userId), 1);
    await rig.admin('user.set', { name: 'erin', groups: [], password: 'another-horse-of-a-test' });
    t.is(await countOf(rig, 'browserSessions', userId), 0);
  },
);

test.serial(
  'user set --reset-otp - a lost authenticator is forgotten, on record, and nothing ends',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('alice');
    const begun = await device.channel.request({ type: 'otp_begin' });
    if (begun.type !== 'otp_secret') throw new Error('no secret');
    const otp = URI.parse(begun.uri).generate();
    await device.channel.request({ type: 'otp_confirm', otp });
    await t.throwsAsync(signIn(device, 'alice', password), { code: 'ERR_IDENTITY_OTP_NEEDED' });
    t.is((await rig.admin('user.show', { name: 'alice' }))['hasOtp'], true);

    await rig.admin('user.set', { name: 'alice', groups: [], resetOtp: true });
    t.is((await rig.admin('user.show', { name: 'alice' }))['hasOtp'], false);
    t.true(await hasSession(device));
    t.is((await signIn(device, 'alice', password)).type, 'signed_in');
    const [record] = (await rig.plane.services.audit.read({ user: 'alice' })).filter(
      ({ action }) => action === 'user.set',
    );
    t.like(JSON.parse(record?.detailsJson ?? '') as object, { resetOtp: true, password: false });
    t.is(record?.actor, 'uid:0');
    // Another one can be set up at once.
    t.is((await device.channel.request({ type: 'otp_begin' })).type, 'otp_secret');
  },
);

test.serial(
  'user set --password-stdin - a forgotten password is replaced and no session ends',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('bob');
    const next = 'another-horse-of-a-test';
    await rig.admin('user.set', { name: 'bob', groups: [], password: next });
    t.true(await hasSession(device));
    await t.throwsAsync(signIn(device, 'bob', password), { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
    t.true(await hasSession(device));
    t.is((await signIn(device, 'bob', next)).type, 'signed_in');
    await t.throwsAsync(rig.admin('user.set', { name: 'bob', groups: [], password: 'short' }), {
      code: 'ERR_IDENTITY_PASSWORD_WEAK',
    });
  },
);
