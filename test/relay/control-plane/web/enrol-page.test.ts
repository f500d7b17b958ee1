import { createHash, randomBytes } from 'node:crypto';
import anyTest, { type TestFn } from 'ava';
import { URI } from 'otpauth';
import { enrol } from '../../../../protocol/host/index.ts';
import { parseEnrolmentCode } from '../../../../protocol/index.ts';
import { password, type DevicePeer } from '../service/rig.ts';
import { fieldOf, locationOf, PageRig, type Shown } from './page-rig.ts';

const test = anyTest as TestFn<{ pages: PageRig }>;

const state = 'a-state-of-the-command';

interface Asked {
  readonly verifier: string;
  readonly path: string;
}

function ask(port: number | null = 40_123): Asked {
  const verifier = randomBytes(32).toString('base64url');
  const query = new URLSearchParams({
    challenge: createHash('sha256').update(verifier).digest('base64url'),
    ...(port === null ? {} : { port: String(port), state }),
  });
  return { verifier, path: `/enrol?${query.toString()}` };
}

/** A user who has a laptop, and an authenticator app. */
async function person(
  { rig }: PageRig,
  user: string,
): Promise<{ readonly device: DevicePeer; readonly otp: (stepsAhead: number) => string }> {
  const device = await rig.device(user);
  const begun = await device.channel.request({ type: 'otp_begin' });
  if (begun.type !== 'otp_secret') throw new Error('no secret');
  const otp = (stepsAhead: number) =>
    URI.parse(begun.uri).generate({ timestamp: Date.now() + stepsAhead * 30_000 });
  await device.channel.request({ type: 'otp_confirm', otp: otp(-1) });
  return { device, otp };
}

async function signIn(pages: PageRig, path: string, user: string, otp: string): Promise<Shown> {
  const at = locationPath(await pages.get(path));
  const second = await pages.post(at, { step: 'password', user, password });
  return pages.post(at, { step: 'otp', token: fieldOf(second, 'token'), otp });
}

const locationPath = ({ headers }: Shown) => String(headers['location']);

function enrolWith(code: string, verifier: string | undefined) {
  return enrol({
    code: parseEnrolmentCode(code),
    hostname: 'new-laptop',
    platform: 'linux',
    password: null,
    expectRole: 'device',
    ...(verifier === undefined ? {} : { verifier }),
  });
}

test.afterEach.always(async (t) => {
  await (t.context.pages as PageRig | undefined)?.stop();
});

test('enrolment by browser - enrols and signs in whoever proves more than a password', async (t) => {
  const pages = (t.context.pages = await PageRig.start({ enrolmentMode: 'sso' }));
  const { otp } = await person(pages, 'alice');
  const asked = ask();
  const back = locationOf(await signIn(pages, asked.path, 'alice', otp(0)));
  t.is(back.origin, 'http://127.0.0.1:40123');
  t.is(back.searchParams.get('state'), state);
  const code = back.searchParams.get('code') ?? '';

  // The code is of no use to anybody else, and good once.
  const other = randomBytes(32).toString('base64url');
  for (const verifier of [undefined, other]) {
    await t.throwsAsync(enrolWith(code, verifier), { code: 'ERR_IDENTITY_CODE_REFUSED' });
  }
  const { identity, answer } = await enrolWith(code, asked.verifier);
  t.like(answer, { role: 'device', user: 'alice', signedIn: true });
  t.false('pending' in answer);
  await t.throwsAsync(enrolWith(code, asked.verifier), { code: 'ERR_IDENTITY_CODE_USED' });
  await t.throwsAsync(enrolWith(code, undefined), { code: 'ERR_IDENTITY_CODE_USED' });
  const { store } = pages.rig.plane.services;
  const kept = await store.db.selectFrom('invites').select('detailsJson').execute();
  t.false(kept.some(({ detailsJson }) => detailsJson.includes('sealedProof')));
  const device = await pages.rig.connectDevice(identity);
  const status = await device.channel.request({ type: 'status' });
  if (status.type !== 'status') throw new Error(status.type);
  t.like(status.session, { user: 'alice', methods: ['password', 'totp'] });
  const reasons = (await pages.refusals('identity.enrol')).map(({ reason }) => reason);
  t.deepEqual(reasons, ['verifier_wrong', 'verifier_wrong', 'code_used', 'code_used']);

  // Without a port the person carries the code.
  const carried = ask(null);
  const shown = await signIn(pages, carried.path, 'alice', otp(1));
  t.is((await enrolWith(fieldOf(shown, 'code'), carried.verifier)).answer.role, 'device');
});

test('enrolment by browser - refuses a password alone, and devices beyond the limit', async (t) => {
  const limits = { enrolmentMode: 'sso', maxDevicesPerUser: 1 } as const;
  const pages = (t.context.pages = await PageRig.start(limits));
  await pages.rig.device('berta');
  const { otp } = await person(pages, 'carla');
  const at = locationPath(await pages.get(ask().path));
  const alone = await pages.post(at, { step: 'password', user: 'berta', password });
  t.is(alone.status, 403);
  t.regex(alone.text, /A password alone enrols no machine/);
  const full = await signIn(pages, ask().path, 'carla', otp(0));
  t.is(full.status, 413);
  t.regex(full.text, /Revoke a device that you no longer use/);
  const reasons = (await pages.refusals('device.enrol')).map(({ reason }) => reason);
  t.deepEqual(reasons, ['enrolment_needs_second_factor', 'devices_too_many']);
});

test('enrolment by browser - holds a device until an administrator approves it', async (t) => {
  const pages = (t.context.pages = await PageRig.start({ enrolmentMode: 'sso-approve' }));
  const { device: first, otp } = await person(pages, 'dora');
  const asked = ask();
  const back = locationOf(await signIn(pages, asked.path, 'dora', otp(0)));
  const code = back.searchParams.get('code') ?? '';
  const { identity, answer } = await enrolWith(code, asked.verifier);
  t.like(answer, { role: 'device', signedIn: false, pending: true });
  const held = await pages.rig.connectDevice(identity);
  const signInHeld = () =>
    held.channel.request({ type: 'sign_in', user: 'dora', password, otp: otp(1) });
  await t.throwsAsync(signInHeld(), { code: 'ERR_IDENTITY_DEVICE_PENDING' });
  const list = await first.channel.request({ type: 'devices' });
  if (list.type !== 'devices') throw new Error(list.type);
  t.like(list.devices[0], { hostname: 'new-laptop', state: 'pending' });

  await pages.rig.admin('device.approve', { id: identity.id });
  const begun = await pages.begin(held, 40_123);
  const second = await pages.post(begun.path, { step: 'password', user: 'dora', password });
  const token = fieldOf(second, 'token');
  // The refused sign-in took that step's password.
  await pages.rig.plane.services.store.write((tx) =>
    tx.updateTable('totpSecrets').set({ lastUsedStep: 0 }).execute(),
  );
  const done = await pages.post(begun.path, { step: 'otp', token, otp: otp(0) });
  const session = await pages.finish(held, begun, locationOf(done).searchParams.get('ticket'));
  t.is(session.user, 'dora');
});

test('enrolment by browser - is closed where machines are enrolled by code alone', async (t) => {
  const pages = (t.context.pages = await PageRig.start());
  const closed = await pages.get(ask().path);
  t.is(closed.status, 403);
  t.regex(closed.text, /one-time code/);
  t.like((await pages.refusals('device.enrol'))[0], { reason: 'enrolment_by_code_only' });
  for (const path of [
    '/enrol',
    '/enrol?challenge=x',
    ask().path.replace('port=40123', 'port=70000'),
  ]) {
    t.is((await pages.get(path)).status, 400);
  }
});
