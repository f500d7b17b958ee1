import anyTest, { type TestFn } from 'ava';
import { URI } from 'otpauth';
import { password, type DevicePeer } from '../service/rig.ts';
import { fieldOf, locationOf, PageRig, type Shown } from './page-rig.ts';

const test = anyTest as TestFn<{ pages: PageRig }>;

test.beforeEach(async (t) => {
  t.context.pages = await PageRig.start();
});
test.afterEach.always(async (t) => {
  await (t.context.pages as PageRig | undefined)?.stop();
});

const step = (user: string) => ({ step: 'password', user, password });

/** Opens the account page as a browser does that is not signed in. */
async function open(pages: PageRig, user: string): Promise<Shown> {
  const at = String((await pages.get('/account')).headers['location']);
  return pages.post(at, step(user));
}

async function setUpOtp(device: DevicePeer): Promise<(stepsAhead: number) => string> {
  const begun = await device.channel.request({ type: 'otp_begin' });
  if (begun.type !== 'otp_secret') throw new Error('no secret');
  const otp = (stepsAhead: number) =>
    URI.parse(begun.uri).generate({ timestamp: Date.now() + stepsAhead * 30_000 });
  await device.channel.request({ type: 'otp_confirm', otp: otp(-1) });
  return otp;
}

test('account page - shows a user’s own devices, and revokes a lost one with its tunnels', async (t) => {
  const { pages } = t.context;
  const lost = await pages.rig.device('alice');
  const foreign = await pages.rig.device('mallory');
  const done = await open(pages, 'alice');
  t.is(done.status, 200);
  const kept = (done.headers['set-cookie'] ?? []) as string[];
  const session = kept.find((text) => text.startsWith('__Host-ztna='));
  t.regex(
    session ?? '',
    /^__Host-ztna=[\w-]{43}; Path=\/; Max-Age=900; Secure; HttpOnly; SameSite=Strict$/,
  );
  const page = await pages.get('/account');
  t.regex(page.text, /alice-laptop/);
  t.notRegex(page.text, /mallory/);
  const form = fieldOf(page, 'form');
  const revoke = (device: string, headers = {}) =>
    pages.post('/account', { form, action: 'revoke_device', device }, headers);

  t.is((await revoke(foreign.identity.id)).status, 404);
  t.is((await foreign.channel.request({ type: 'status' })).type, 'status');
  t.is((await revoke(lost.identity.id, { origin: 'https://evil.example' })).status, 403);
  const unbound = { form: 'x'.repeat(43), action: 'revoke_device', device: lost.identity.id };
  t.is((await pages.post('/account', unbound)).status, 403);
  t.is((await lost.channel.request({ type: 'status' })).type, 'status');

  const revoked = await revoke(lost.identity.id);
  t.is(revoked.status, 303);
  await t.throwsAsync(lost.channel.request({ type: 'status' }));
  const after = await pages.get(String(revoked.headers['location']));
  t.regex(after.text, /The device is revoked/);
  t.notRegex(after.text, /alice-laptop/);
});

test('account page - is open to the browser that signed in alone, until it signs out or the account is closed', async (t) => {
  const { pages } = t.context;
  await pages.rig.device('berta');
  const at = String((await pages.get('/account')).headers['location']);
  const begin = pages.cookies.get('__Host-ztna-begin') ?? '';
  // Who is sent somebody else's link signs in nowhere.
  pages.cookies.clear();
  t.is((await pages.post(at, step('berta'))).status, 403);
  t.like((await pages.refusals('account.sign_in'))[0], { reason: 'browser_other' });
  pages.cookies.set('__Host-ztna-begin', begin);
  t.is((await pages.post(at, step('berta'))).status, 200);

  const session = pages.cookies.get('__Host-ztna') ?? '';
  const form = fieldOf(await pages.get('/account'), 'form');
  const left = await pages.post('/account', { form, action: 'sign_out' });
  t.is(left.headers['location'], '/');
  pages.cookies.set('__Host-ztna', session);
  t.is((await pages.get('/account')).status, 303);

  await open(pages, 'berta');
  t.is((await pages.get('/account')).status, 200);
  await pages.rig.admin('user.disable', { name: 'berta' });
  t.is((await pages.get('/account')).status, 303);
  const rows = await pages.rig.plane.services.store.db
    .selectFrom('browserSessions')
    .selectAll()
    .execute();
  t.deepEqual(rows, []);
});

test('account page - makes recovery codes for who signed in with all that he or she has, and not long ago', async (t) => {
  const { pages } = t.context;
  const device = await pages.rig.device('carla');
  await open(pages, 'carla');
  const form = fieldOf(await pages.get('/account'), 'form');
  const make = (token: string) => pages.post('/account', { form: token, action: 'make_codes' });
  t.is((await make(form)).status, 403);
  await pages.get(await pages.accountPath(device));
  t.is((await make(form)).status, 404); // they stand in for one-time passwords
  const otp = await setUpOtp(device);
  // Signed in by a password alone, before there was more.
  t.is((await make(form)).status, 403);

  const at = String((await pages.get('/account/again')).headers['location']);
  const second = await pages.post(at, step('carla'));
  const token = fieldOf(second, 'token');
  await pages.post(at, { step: 'otp', token, otp: otp(0) });
  const fresh = fieldOf(await pages.get('/account'), 'form');
  const shown = await make(fresh);
  t.is(shown.status, 200);
  const codes = [...shown.text.matchAll(/<li>([\w-]{14})<\/li>/g)].map(([, code = '']) => code);
  t.is(codes.length, 10);

  // One of them signs in on a page, too.
  const begun = await pages.begin(device, 40_123);
  const next = await pages.post(begun.path, step('carla'));
  const answer = { step: 'otp', token: fieldOf(next, 'token'), otp: codes[0] ?? '' };
  const back = locationOf(await pages.post(begun.path, answer));
  const session = await pages.finish(device, begun, back.searchParams.get('ticket'));
  t.deepEqual(session.methods, ['password', 'recovery']);

  await pages.rig.plane.services.store.write((tx) =>
    tx
      .updateTable('browserSessions')
      .set((eb) => ({ createdAtMs: eb('createdAtMs', '-', 300_001) }))
      .execute(),
  );
  t.is((await make(fresh)).status, 403);
  t.regex((await pages.get('/account')).text, /You signed in a while ago/);
});

test('account page - has a user’s first passkey added from an enrolled machine, not by a password alone', async (t) => {
  const { pages } = t.context;
  const device = await pages.rig.device('frida');
  const other = await pages.rig.device('mallory');
  await open(pages, 'frida');
  const form = fieldOf(await pages.get('/account'), 'form');
  const begin = () => pages.post('/account/passkey', { form, action: 'add_passkey' });
  t.regex((await pages.get('/account')).text, /ztna mfa add --passkey/);
  t.is((await begin()).status, 403);
  for (const path of [
    await pages.accountPath(other),
    '/account?device=made-up',
    '/account?device=%22',
  ]) {
    t.is((await pages.get(path)).status, 303);
    t.is((await begin()).status, 403, path);
  }
  t.is((await pages.get(await pages.accountPath(device))).headers['location'], '/account');
  const options = await begin();
  t.is(options.status, 200);
  t.like(JSON.parse(options.text), { rp: { id: 'localhost' }, user: { name: 'frida' } });
});

test('sign-in page - lets a user in where he or she has been before, while strangers guess the password', async (t) => {
  const { pages } = t.context;
  await pages.rig.device('dora');
  await open(pages, 'dora');
  const mine = pages.cookies.get('__Host-ztna-known') ?? '';
  pages.cookies.clear();
  const at = String((await pages.get('/account')).headers['location']);
  const begin = pages.cookies.get('__Host-ztna-begin') ?? '';
  pages.cookies.clear();
  for (;;) {
    const guess = { step: 'password', user: 'dora', password: 'a-guess-of-a-stranger' };
    if ((await pages.post(at, guess)).status === 429) break;
  }
  pages.cookies.set('__Host-ztna-begin', begin);
  t.is((await pages.post(at, step('dora'))).status, 429);
  // What another user's browser keeps is of no use here.
  await pages.rig.device('eva');
  await open(pages, 'eva');
  t.not(pages.cookies.get('__Host-ztna-known') ?? '', mine);
  pages.cookies.set('__Host-ztna-begin', begin);
  t.is((await pages.post(at, step('dora'))).status, 429);
  pages.cookies.set('__Host-ztna-known', mine);
  t.is((await pages.post(at, step('dora'))).status, 200);
});
