import anyTest, { type TestFn } from 'ava';
import { URI } from 'otpauth';
import { type ToDevice } from '../../../../protocol/index.ts';
import { enrol } from '../../../../protocol/host/index.ts';
import { parseEnrolmentCode } from '../../../../protocol/index.ts';
import { password, type DevicePeer } from '../service/rig.ts';
import { PageRig } from './page-rig.ts';

const test = anyTest as TestFn<{ pages: PageRig }>;

test.before(async (t) => {
  t.context.pages = await PageRig.start();
});
test.after.always(async (t) => {
  await t.context.pages.stop();
});

function expect<T extends ToDevice['type']>(answer: ToDevice, type: T) {
  if (answer.type !== type) throw new Error(`no ${type} but ${answer.type}`);
  return answer as Extract<ToDevice, { type: T }>;
}

/** Another device of a user who has one already. */
async function secondDevice({ rig }: PageRig, user: string): Promise<DevicePeer> {
  const { identity } = await enrol({
    code: parseEnrolmentCode(await rig.userCode(user, ['staff'])),
    hostname: `${user}-phone`,
    platform: 'linux',
    password,
    expectRole: 'device',
  });
  return rig.connectDevice(identity);
}

async function setUpOtp(device: DevicePeer): Promise<(stepsAgo?: number) => string> {
  const { uri } = expect(await device.channel.request({ type: 'otp_begin' }), 'otp_secret');
  const codeOf = (stepsAgo = 0) =>
    URI.parse(uri).generate({ timestamp: Date.now() - stepsAgo * 30_000 });
  await device.channel.request({ type: 'otp_confirm', otp: codeOf(1) });
  return codeOf;
}

const signIn = (device: DevicePeer, user: string, otp: string | null) =>
  device.channel.request({ type: 'sign_in', user, password, otp });

test.serial('devices - users see their own, and end one of them with its tunnels', async (t) => {
  const { pages } = t.context;
  const mine = await pages.rig.device('alice');
  const lost = await secondDevice(pages, 'alice');
  const foreign = await pages.rig.device('mallory');
  const { devices } = expect(await mine.channel.request({ type: 'devices' }), 'devices');
  t.deepEqual(
    devices.map(({ hostname, isThis, isOnline, state }) => ({ hostname, isThis, isOnline, state })),
    [
      { hostname: 'alice-phone', isThis: false, isOnline: true, state: 'enrolled' },
      { hostname: 'alice-laptop', isThis: true, isOnline: true, state: 'enrolled' },
    ],
  );
  const stranger = foreign.channel.request({
    type: 'device_revoke',
    device: lost.identity.id as never,
  });
  await t.throwsAsync(stranger, { code: 'ERR_CONFIG_NOT_FOUND' });
  t.is((await lost.channel.request({ type: 'status' })).type, 'status');

  await mine.channel.request({ type: 'device_revoke', device: lost.identity.id as never });
  await t.throwsAsync(lost.channel.request({ type: 'status' }));
  await t.throwsAsync(pages.rig.connectDevice(lost.identity), { code: 'ERR_IDENTITY_REVOKED' });
  const left = expect(await mine.channel.request({ type: 'devices' }), 'devices');
  t.is(left.devices.length, 1);
  const self = { type: 'device_revoke', device: mine.identity.id } as const;
  t.is((await mine.channel.request(self as never)).type, 'done');
  await mine.channel.closed;
  const [record] = (await pages.rig.plane.services.audit.read({ user: 'alice' })).filter(
    ({ action }) => action === 'device.revoke',
  );
  t.is(record?.actor, `device:${mine.identity.id}`);
  t.like(JSON.parse(record?.detailsJson ?? '') as object, { hostname: 'alice-phone' });
});

test.serial('recovery codes - each signs in once in place of a one-time password', async (t) => {
  const { pages } = t.context;
  const device = await pages.rig.device('berta');
  const early = device.channel.request({ type: 'recovery_begin', otp: '123456' });
  await t.throwsAsync(early, { code: 'ERR_CONFIG_NOT_FOUND' });
  const codeOf = await setUpOtp(device);
  const wrong = device.channel.request({ type: 'recovery_begin', otp: 'abcd-efgh-jkmn' });
  await t.throwsAsync(wrong, { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
  const { codes } = expect(
    await device.channel.request({ type: 'recovery_begin', otp: codeOf() }),
    'recovery_codes',
  );
  t.is(new Set(codes).size, 10);

  const [first = '', second = '', third = ''] = codes;
  const { session } = expect(await signIn(device, 'berta', first), 'signed_in');
  t.deepEqual(session.methods, ['password', 'recovery']);
  const spent = signIn(device, 'berta', first);
  await t.throwsAsync(spent, { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
  // As people type it.
  await signIn(device, 'berta', second.toUpperCase().replaceAll('-', ' '));
  const factors = expect(await device.channel.request({ type: 'factors' }), 'factors');
  t.like(factors, { otp: true, recoveryCodesLeft: 8, passkeys: [] });
  t.true(factors.accountUrl.startsWith(`${pages.rig.url}/account?device=`));

  // Nobody else's code serves, and with the authenticator its codes go.
  const other = await pages.rig.device('carla');
  await setUpOtp(other);
  const foreign = signIn(other, 'carla', third);
  await t.throwsAsync(foreign, { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
  await device.channel.request({ type: 'otp_remove', otp: third });
  const none = expect(await device.channel.request({ type: 'factors' }), 'factors');
  t.like(none, { otp: false, recoveryCodesLeft: 0 });
});

test.serial('recovery codes - of many who type one at once, one signs in', async (t) => {
  const { pages } = t.context;
  const device = await pages.rig.device('dora');
  const codeOf = await setUpOtp(device);
  const { codes } = expect(
    await device.channel.request({ type: 'recovery_begin', otp: codeOf() }),
    'recovery_codes',
  );
  const [code = ''] = codes;
  const tries = Array.from({ length: 4 }, () => signIn(device, 'dora', code));
  const results = await Promise.allSettled(tries);
  t.is(results.filter(({ status }) => status === 'fulfilled').length, 1);
});

test.serial(
  'one-time passwords - a password alone beside a passkey, or an old sign-in, sets none up',
  async (t) => {
    const { pages } = t.context;
    const { store, clock } = pages.rig.plane.services;
    const device = await pages.rig.device('grace');
    const id = device.identity.id as never;
    const begin = () => device.channel.request({ type: 'otp_begin' });
    const session = (change: { methodsJson?: string; authenticatedAtMs?: number }) =>
      store.write((tx) =>
        tx.updateTable('sessions').set(change).where('deviceId', '=', id).execute(),
      );
    await session({ authenticatedAtMs: clock.nowMs() - 301_000 });
    await t.throwsAsync(begin(), { code: 'ERR_IDENTITY_SIGN_IN_NEEDED' });
    await session({ authenticatedAtMs: clock.nowMs() });
    await store.write(async (tx) => {
      const { userId } = await tx
        .selectFrom('devices')
        .select('userId')
        .where('id', '=', id)
        .executeTakeFirstOrThrow();
      const key = { id: 'of-grace', userId, name: 'key', publicKey: 'x', counter: 0 };
      const more = {
        transportsJson: '[]',
        backedUp: 0,
        createdAtMs: 1,
        lastUsedAtMs: null,
      } as const;
      await tx
        .insertInto('passkeys')
        .values({ ...key, ...more })
        .execute();
    });
    await t.throwsAsync(begin(), { code: 'ERR_IDENTITY_SIGN_IN_NEEDED' });
    await session({ methodsJson: '["passkey"]' });
    t.is((await begin()).type, 'otp_secret');
  },
);

test.serial(
  'passkeys - one is removed by its owner alone, freshly and strongly signed in',
  async (t) => {
    const { pages } = t.context;
    const { store } = pages.rig.plane.services;
    const device = await pages.rig.device('eva');
    const other = await pages.rig.device('frida');
    await store.write(async (tx) => {
      const { userId } = await tx
        .selectFrom('devices')
        .select('userId')
        .where('id', '=', device.identity.id as never)
        .executeTakeFirstOrThrow();
      await tx
        .insertInto('passkeys')
        .values({
          ...{ id: 'a-passkey', userId, name: 'key', publicKey: 'x', counter: 0 },
          ...{ transportsJson: '[]', backedUp: 0, createdAtMs: 1, lastUsedAtMs: null },
        })
        .execute();
    });
    const remove = (from: DevicePeer) =>
      from.channel.request({ type: 'passkey_remove', passkey: 'a-passkey' });
    // A password alone does not take away what is stronger than itself.
    await t.throwsAsync(remove(device), { code: 'ERR_IDENTITY_SIGN_IN_NEEDED' });
    await t.throwsAsync(remove(other), { code: 'ERR_CONFIG_NOT_FOUND' });
    const session = (change: { methodsJson?: string; authenticatedAtMs?: number }) =>
      store.write((tx) =>
        tx
          .updateTable('sessions')
          .set(change)
          .where('deviceId', '=', device.identity.id as never)
          .execute(),
      );
    await session({ methodsJson: '["passkey"]', authenticatedAtMs: 1 });
    await t.throwsAsync(remove(device), { code: 'ERR_IDENTITY_SIGN_IN_NEEDED' });
    await session({ authenticatedAtMs: pages.rig.plane.services.clock.nowMs() });
    t.is((await remove(device)).type, 'done');
    const factors = expect(await device.channel.request({ type: 'factors' }), 'factors');
    t.deepEqual(factors.passkeys, []);
  },
);
