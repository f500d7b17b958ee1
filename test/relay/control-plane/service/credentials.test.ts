import anyTest, { type TestFn } from 'ava';
import { URI } from 'otpauth';
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
  'user set --password-stdin - a forgotten password is replaced and nothing ends',
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
