import anyTest, { type TestFn } from 'ava';
import { beginSignIn } from '../../../../../relay/control-plane/identity/index.ts';
import { ScriptedBrowser } from '../../../../support/scripted-browser.ts';
import { loopbackPort, OidcRig, settingsOf } from './oidc-rig.ts';

const test = anyTest as TestFn<{ all: OidcRig }>;

const alice = 'alice@example.com';
const people = {
  alice: {
    claims: { email: alice, email_verified: true, name: 'Alice A.', groups: ['/Eng', 'ops team'] },
    amr: ['pwd', 'otp'],
    acr: '1',
  },
  bob: { claims: { email: 'bob@example.com', groups: ['ops'] }, amr: ['hwk'], acr: 'phr' },
  eve: { claims: { email: 'local-eve@example.com' } },
  hal: { claims: { email: 'hal@example.com' } },
  fay: { claims: { email: 'fay@example.com' } },
  gil: { claims: { email: 'gil@example.com' } },
  mallory: { claims: { email: alice, email_verified: false } },
};

test.before(async (t) => {
  t.context.all = await OidcRig.start({ people });
});
test.after.always(async (t) => {
  await t.context.all.stop();
});

test.serial('sign_in_begin - a browser beside the command signs the device in', async (t) => {
  const { all } = t.context;
  const { store, audit } = all.rig.plane.services;
  const device = await all.device(alice);
  const providers = await device.channel.request({ type: 'providers' });
  t.like(providers, {
    isLocal: true,
    providers: [{ name: 'idp', title: 'The test directory', hasDeviceCode: true }],
  });
  const session = await all.signIn(device, 'alice');
  t.like(session, { user: alice, methods: ['pwd', 'otp'] });
  const row = await store.db
    .selectFrom('sessions')
    .selectAll()
    .where('id', '=', session.session)
    .executeTakeFirstOrThrow();
  t.like(row, { provider: 'idp', acr: '1' });
  const user = await store.db
    .selectFrom('users')
    .selectAll()
    .where('name', '=', alice)
    .executeTakeFirstOrThrow();
  t.like(user, { provider: 'idp', subject: 'alice' });
  t.deepEqual((await all.rig.admin('user.show', { name: alice }))['groups'], ['eng']);
  const kept = await store.db.selectFrom('providerGrants').selectAll().executeTakeFirstOrThrow();
  t.like(kept, { sessionId: session.session, provider: 'idp', subject: 'alice' });
  t.false(kept.sealedTokens.includes('eyJhbGciOi'), 'tokens lie sealed in the store');
  const record = (await audit.read({ user: alice })).findLast(
    ({ action }) => action === 'session.sign_in',
  );
  t.like(JSON.parse(record?.detailsJson ?? '') as object, { provider: 'idp', acr: '1' });
});

test.serial(
  'sign_in_begin - without a browser beside the command a page shows the ticket',
  async (t) => {
    const { all } = t.context;
    const device = await all.device(alice);
    const asked = await all.begin(device, { loopbackPort: null });
    const { status, text } = await all.visit(asked, all.server.browserOf('alice'));
    t.is(status, 200);
    const ticket = /id="ticket"[^>]*value="([^"]+)"/.exec(text)?.[1] ?? '';
    t.is((await all.finish(device, asked, ticket)).type, 'signed_in');
  },
);

test.serial('sign_in_begin - a step-up asks the provider anew, and has what it says', async (t) => {
  const { all } = t.context;
  const device = await all.device('bob@example.com');
  const browser = all.server.browserOf('bob');
  const asked = await all.begin(device, { isStepUp: true });
  const { url } = await all.visit(asked, browser);
  const authorization = browser.visited.find((one) => new URL(one).pathname === '/auth') ?? '';
  const query = new URL(authorization).searchParams;
  t.is(query.get('prompt'), 'login');
  t.is(query.get('max_age'), '0');
  t.is(query.get('code_challenge_method'), 'S256');
  const done = await all.finish(device, asked, url.searchParams.get('ticket'));
  if (done.type !== 'signed_in') throw new Error('not signed in');
  t.deepEqual(done.session.methods, ['hwk', 'phr']);
});

test.serial(
  'openid - a user of this deployment is not taken over by one of a provider',
  async (t) => {
    const { all } = t.context;
    const device = await all.device('local-eve@example.com', null);
    const asked = await all.begin(device);
    const { status, text } = await all.visit(asked, all.server.browserOf('eve'));
    t.is(status, 403);
    t.regex(text, /somebody else has that name here/i);
    await t.throwsAsync(all.finish(device, asked, null), { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
    t.is((await all.refusals()).at(-1), 'identity_name_taken');
  },
);

test.serial('openid - an address that nobody verified names nobody', async (t) => {
  const { all } = t.context;
  const device = await all.device('new@example.com');
  const asked = await all.begin(device);
  t.is((await all.visit(asked, all.server.browserOf('mallory'))).status, 403);
  t.is((await all.refusals()).at(-1), 'email_not_verified');
});

test.serial('openid - a sign-in link sent to another person signs nobody in', async (t) => {
  const { all } = t.context;
  // Mallory begins one on her own device, and has Alice open it.
  const device = await all.device('mallory2@example.com');
  const asked = await all.begin(device);
  const { status } = await all.visit(asked, all.server.browserOf('alice'));
  t.is(status, 403);
  t.is((await all.refusals()).at(-1), 'device_not_of_user');
  const error = await t.throwsAsync(all.finish(device, asked, null), {
    code: 'ERR_IDENTITY_SIGN_IN_REFUSED',
  });
  t.truthy(error);
});

test.serial(
  'openid - a link has nobody enrol a machine without the page that says so',
  async (t) => {
    const { all } = t.context;
    const { rig, server } = all;
    const { store, clock } = rig.plane.services;
    const signIn = await store.write((tx) =>
      beginSignIn(tx, {
        ...{ purpose: 'enrolment', deviceId: null, provider: null, challenge: 'x'.repeat(43) },
        ...{ loopbackPort, loopbackState: 'of mallory', address: '192.0.2.1', isStepUp: false },
        nowMs: clock.nowMs(),
      }),
    );
    const begin = `${rig.url}/oidc/idp/begin?sign_in=${signIn.id}`;
    for (const site of ['cross-site', 'same-site', 'none']) {
      const { status, headers } = await new ScriptedBrowser({ 'sec-fetch-site': site }).ask(begin);
      t.is(status, 303);
      t.is(headers['location'], `/sign-in/${signIn.id}`);
    }
    const own = await new ScriptedBrowser({ 'sec-fetch-site': 'same-origin' }).ask(begin);
    t.true(String(own.headers['location']).startsWith(server.issuer));
  },
);

test.serial(
  'openid - what was proved counts no more once its provider is removed, or its user linked elsewhere',
  async (t) => {
    const { all } = t.context;
    const { store } = all.rig.plane.services;
    const device = await all.device('fay@example.com');
    const prove = async () => {
      const asked = await all.begin(device);
      const { url } = await all.visit(asked, all.server.browserOf('fay'));
      return { asked, ticket: url.searchParams.get('ticket') };
    };
    const [removed, linked] = [await prove(), await prove()];
    const row = await store.db
      .selectFrom('providers')
      .selectAll()
      .where('name', '=', 'idp')
      .executeTakeFirstOrThrow();
    const refusal = { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' };
    await store.write((tx) => tx.deleteFrom('providers').where('name', '=', 'idp').execute());
    await t.throwsAsync(all.finish(device, removed.asked, removed.ticket), refusal);
    await store.write((tx) => tx.insertInto('providers').values(row).execute());
    t.is((await all.refusals()).at(-1), 'provider_other');
    const provider = (name: string | null) =>
      store.write((tx) =>
        tx
          .updateTable('users')
          .set({ provider: name })
          .where('name', '=', 'fay@example.com')
          .execute(),
      );
    await provider('another');
    await t.throwsAsync(all.finish(device, linked.asked, linked.ticket), refusal);
    t.is((await all.refusals()).at(-1), 'provider_other');
    await provider('idp');
  },
);

test.serial('openid - who says no at the provider is told, and so is the command', async (t) => {
  const { all } = t.context;
  const device = await all.device(alice);
  const asked = await all.begin(device);
  const { status } = await all.visit(asked, all.server.browserOf('nobody'));
  t.is(status, 403);
  t.is((await all.refusals()).at(-1), 'denied_by_provider');
  await t.throwsAsync(all.finish(device, asked, null), { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
});

test.serial(
  'device code - a machine without a browser signs in once its code was typed',
  async (t) => {
    const { all } = t.context;
    const device = await all.device(alice);
    const asked = await all.begin(device, {
      method: 'device_code',
      provider: null,
      loopbackPort: null,
    });
    t.truthy(asked.userCode);
    t.true(asked.url.startsWith(all.server.issuer));
    await all.server.confirmDevice(asked.url, 'alice');
    t.like(await all.finish(device, asked, null), {
      type: 'signed_in',
      session: { user: alice, methods: ['pwd', 'otp'] },
    });
  },
);

test.serial('device code - waits, and asks the provider no more often than it may', async (t) => {
  const { all } = t.context;
  const device = await all.device(alice);
  const asked = await all.begin(device, { method: 'device_code', loopbackPort: null });
  const tokens = () => all.server.requests.filter((one) => one === 'POST /token').length;
  const before = tokens();
  for (let count = 0; count < 3; count++) {
    await t.throwsAsync(all.finish(device, asked, null), { code: 'ERR_IDENTITY_SIGN_IN_PENDING' });
  }
  t.is(tokens(), before + 1);
});

test.serial('device code - one that another person typed signs nobody in', async (t) => {
  const { all } = t.context;
  const device = await all.device('mallory3@example.com');
  const asked = await all.begin(device, { method: 'device_code', loopbackPort: null });
  await all.server.confirmDevice(asked.url, 'alice');
  await t.throwsAsync(all.finish(device, asked, null), { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
  t.is((await all.refusals()).at(-1), 'device_not_of_user');
});

test.serial(
  'openid - who is disabled between the provider and the command gets no session',
  async (t) => {
    const { all } = t.context;
    const device = await all.device('fay@example.com');
    const asked = await all.begin(device);
    const { url } = await all.visit(asked, all.server.browserOf('fay'));
    await all.rig.admin('user.disable', { name: 'fay@example.com' });
    await t.throwsAsync(all.finish(device, asked, url.searchParams.get('ticket')), {
      code: 'ERR_IDENTITY_SIGN_IN_REFUSED',
    });
    t.is((await all.refusals()).at(-1), 'user_not_active');
    const again = await all.begin(device);
    t.is((await all.visit(again, all.server.browserOf('fay'))).status, 403);
    t.is((await all.refusals()).at(-1), 'user_not_active');
  },
);

test.serial('openid - who is not known is let in only where that is said', async (t) => {
  const { all } = t.context;
  const { store } = all.rig.plane.services;
  await all.rig.admin(
    'provider.add',
    settingsOf(all.server, { createUsers: false, replace: true }),
  );
  t.teardown(() => all.rig.admin('provider.add', settingsOf(all.server, { replace: true })));
  const device = await all.device('gil@example.com');
  await store.write((tx) =>
    tx
      .updateTable('users')
      .set({ name: 'gilbert' })
      .where('name', '=', 'gil@example.com')
      .execute(),
  );
  const asked = await all.begin(device);
  t.is((await all.visit(asked, all.server.browserOf('gil'))).status, 403);
  t.is((await all.refusals()).at(-1), 'user_unknown');
});

test.serial(
  'openid - a client secret that is wrong by now is told from a code that is',
  async (t) => {
    const { all } = t.context;
    const put = (more: Record<string, unknown>) =>
      all.rig.admin('provider.add', settingsOf(all.server, { replace: true, ...more }));
    await put({ secret: 'another-secret' });
    t.teardown(() => put({}));
    const device = await all.device('hal@example.com');
    const asked = await all.begin(device);
    t.is((await all.visit(asked, all.server.browserOf('hal'))).status, 403);
    t.is((await all.refusals()).at(-1), 'client_refused');
    // With new settings and no word of a secret, that of before counts.
    await put({});
    const silent = settingsOf(all.server, { replace: true, title: 'Other' });
    delete silent['secret'];
    await all.rig.admin('provider.add', silent);
    t.is((await all.signIn(device, 'hal')).user, 'hal@example.com');
  },
);
