import { randomUUID } from 'node:crypto';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { ScriptedBrowser } from '../../../../support/scripted-browser.ts';
import type { DevicePeer } from '../../service/rig.ts';
import { FakeProvider, otherKey, type IdTokenWishes } from './fake-provider.ts';
import { OidcRig, type Asked } from './oidc-rig.ts';

interface Context {
  all: OidcRig;
  fake: FakeProvider;
  device: DevicePeer;
}
const test = anyTest as TestFn<Context>;

const eve = 'eve@example.com';

test.before(async (t) => {
  const people = { eve: { claims: { email: eve } } };
  t.context.all = await OidcRig.start({ people });
  t.context.fake = await FakeProvider.start();
  await t.context.all.rig.admin('provider.add', t.context.fake.settings());
  t.context.device = await t.context.all.device(eve, 'fake');
});
test.beforeEach((t) => {
  const { fake } = t.context;
  fake.wishes = {};
  fake.instead.clear();
});
test.after.always(async (t) => {
  await t.context.all.stop();
  await t.context.fake.stop();
});

interface Sent {
  readonly asked: Asked;
  readonly browser: ScriptedBrowser;
  readonly state: string;
  readonly authorization: URL;
}

/** Begins a sign-in and goes as far as the provider's page, which is not asked for. */
async function send({ all, device, fake }: Context, provider = 'fake'): Promise<Sent> {
  const asked = await all.begin(device, { provider });
  const browser = new ScriptedBrowser();
  const { url } = await browser.follow(asked.url, ({ pathname }) => pathname === '/auth');
  fake.nonce = url.searchParams.get('nonce') ?? '';
  return { asked, browser, authorization: url, state: url.searchParams.get('state') ?? '' };
}

function bring(
  { all }: Context,
  { browser }: Pick<Sent, 'browser'>,
  query: Readonly<Record<string, string>>,
  provider = 'fake',
) {
  const search = new URLSearchParams(query).toString();
  return browser.follow(
    `${all.rig.url}/oidc/${provider}/callback?${search}`,
    ({ hostname, port }) => {
      return hostname === '127.0.0.1' && port !== new URL(all.rig.url).port;
    },
  );
}

async function isRefused(t: ExecutionContext<Context>, status: number, reason: string) {
  const { all, device } = t.context;
  t.true([403, 500, 503].includes(status), String(status));
  t.is((await all.refusals()).at(-1), reason);
  const answer = await device.channel.request({ type: 'status' });
  t.true(answer.type === 'status' && answer.session?.provider !== 'fake');
}

/** The command that began it is told, too. */
async function isOver(t: ExecutionContext<Context>, { asked }: Sent) {
  const { all, device } = t.context;
  await t.throwsAsync(all.finish(device, asked, null), { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
}

/** It goes on as if nothing had been: what strangers bring does not stop who began. */
async function isOpen(t: ExecutionContext<Context>, { asked }: Sent) {
  const { all, device } = t.context;
  await t.throwsAsync(all.finish(device, asked, null), { code: 'ERR_IDENTITY_SIGN_IN_PENDING' });
}

test.serial(
  'openid attack - the provider of these tests signs in as long as it plays by the rules',
  async (t) => {
    const sent = await send(t.context);
    const { url, status } = await bring(t.context, sent, { code: 'c', state: sent.state });
    t.is(status, 303);
    const { all, device } = t.context;
    const done = await all.finish(device, sent.asked, url.searchParams.get('ticket'));
    t.is(done.type, 'signed_in');
    await device.channel.request({ type: 'sign_out' });
  },
);

test.serial('openid attack - a state that was not given out', async (t) => {
  const sent = await send(t.context);
  const id = sent.state.split('.')[0] ?? '';
  for (const state of ['', 'x', `${id}.`, `${id}.x`, `${id}.${'A'.repeat(32)}`]) {
    const { status } = await bring(t.context, sent, { code: 'c', state });
    await isRefused(t, status, 'state_wrong');
  }
  await isOpen(t, sent);
});

test.serial('openid attack - an answer brought by another browser', async (t) => {
  const sent = await send(t.context);
  for (const browser of [new ScriptedBrowser(), (await send(t.context)).browser]) {
    const { status } = await bring(t.context, { browser }, { code: 'c', state: sent.state });
    await isRefused(t, status, 'browser_other');
  }
  await isOpen(t, sent);
});

test.serial('openid attack - an answer brought twice', async (t) => {
  const sent = await send(t.context);
  const query = { code: 'c', state: sent.state };
  t.is((await bring(t.context, sent, query)).status, 303);
  const { status } = await bring(t.context, sent, query);
  await isRefused(t, status, 'callback_replayed');
});

test.serial('openid attack - two answers at once', async (t) => {
  const sent = await send(t.context);
  const query = { code: 'c', state: sent.state };
  const both = await Promise.all([bring(t.context, sent, query), bring(t.context, sent, query)]);
  t.deepEqual(both.map(({ status }) => status).sort(), [303, 403]);
  await isRefused(t, 403, 'callback_replayed');
});

test.serial('openid attack - a code of another sign-in', async (t) => {
  const { all } = t.context;
  const browserOf = async () => {
    const asked = await all.begin(t.context.device);
    const browser = all.server.browserOf('eve');
    const { url } = await all.visitProvider(asked, browser);
    return { asked, browser, url };
  };
  const one = await browserOf();
  const other = await browserOf();
  other.url.searchParams.set('code', one.url.searchParams.get('code') ?? '');
  const { status } = await other.browser.follow(other.url);
  await isRefused(t, status, 'code_refused');
});

test.serial('openid attack - a request whose PKCE challenge was taken out', async (t) => {
  const sent = await send(t.context, 'idp');
  const bare = new URL(sent.authorization);
  for (const name of ['code_challenge', 'code_challenge_method']) bare.searchParams.delete(name);
  t.is(sent.authorization.searchParams.get('code_challenge_method'), 'S256');
  const { status } = await sent.browser.follow(bare);
  await isRefused(t, status, 'provider_error');
});

test.serial('openid attack - the answer of one provider brought as that of another', async (t) => {
  const sent = await send(t.context);
  const { status } = await bring(t.context, sent, { code: 'c', state: sent.state }, 'idp');
  await isRefused(t, status, 'provider_mixed_up');
  await isOver(t, sent);
});

for (const [title, more] of [
  ['another issuer', (fake: FakeProvider) => ({ iss: fake.issuer })],
  ['no issuer, where it always says one', () => ({})],
] as const) {
  test.serial(`openid attack - an answer that names ${title}`, async (t) => {
    const sent = await send(t.context, 'idp');
    const query = { code: 'c', state: sent.state, ...more(t.context.fake) };
    const { status } = await bring(t.context, sent, query, 'idp');
    await isRefused(t, status, 'provider_mixed_up');
    await isOver(t, sent);
  });
}

const tokens: readonly (readonly [string, IdTokenWishes, string])[] = [
  ['with another nonce', { claims: { nonce: 'other' } }, 'nonce_wrong'],
  ['of another issuer', { claims: { iss: 'https://x.example.com' } }, 'issuer_wrong'],
  ['for somebody else', { claims: { aud: 'other' } }, 'audience_wrong'],
  ['for several, and by another', { claims: { aud: ['ztna', 'b'], azp: 'b' } }, 'audience_wrong'],
  ['that has run out', { claims: { iat: 1, exp: 1_000_000 } }, 'token_expired'],
  ['without a signature (alg none)', { alg: 'none' }, 'algorithm_refused'],
  ['signed with a shared secret', { alg: 'HS256' }, 'algorithm_refused'],
  ['signed by a key that is not its own', { key: otherKey() }, 'signature_wrong'],
  ['signed by a key that nobody knows', { kid: 'k2' }, 'key_unknown'],
];
for (const [title, wishes, reason] of tokens) {
  test.serial(`openid attack - an ID token ${title}`, async (t) => {
    t.context.fake.wishes = wishes;
    const sent = await send(t.context);
    const { status } = await bring(t.context, sent, { code: 'c', state: sent.state });
    await isRefused(t, status, reason);
    await isOver(t, sent);
  });
}

test.serial('openid attack - facts about another person than the token is about', async (t) => {
  const { fake } = t.context;
  fake.wishes = { claims: { email: undefined } };
  fake.userInfo = { sub: 'somebody-else', email: eve };
  t.teardown(() => (fake.userInfo = {}));
  const sent = await send(t.context);
  const { status } = await bring(t.context, sent, { code: 'c', state: sent.state });
  await isRefused(t, status, 'subject_other');
  await isOver(t, sent);
});

test.serial('openid attack - an old sign-in where a fresh one was asked for', async (t) => {
  const { all, device, fake } = t.context;
  const asked = await all.begin(device, { provider: 'fake', isStepUp: true });
  const browser = new ScriptedBrowser();
  const { url } = await browser.follow(asked.url, ({ pathname }) => pathname === '/auth');
  fake.nonce = url.searchParams.get('nonce') ?? '';
  fake.wishes = { claims: { auth_time: Math.floor(Date.now() / 1_000) - 3_600 } };
  const state = url.searchParams.get('state') ?? '';
  const { status } = await bring(t.context, { browser }, { code: 'c', state });
  await isRefused(t, status, 'not_fresh');
});

/** Its keys are read anew each time: what is known of it is forgotten by new settings. */
async function forget({ all, fake }: Context, change: Record<string, unknown> = {}): Promise<void> {
  const settings = fake.settings({ replace: true, title: `A fake, ${randomUUID()}` });
  await all.rig.admin('provider.add', { ...settings, ...change });
}

test.serial('openid attack - keys of 10 MB', async (t) => {
  await forget(t.context);
  t.context.fake.instead.set('/jwks', (_request, response) => {
    response.setHeader('content-type', 'application/json');
    response.on('error', () => undefined);
    response.end(`{"keys":[],"x":"${'x'.repeat(10_000_000)}"}`);
  });
  const sent = await send(t.context);
  const { status } = await bring(t.context, sent, { code: 'c', state: sent.state });
  await isRefused(t, status, 'provider_too_large');
  await isOver(t, sent);
});

test.serial('openid attack - keys that never come', async (t) => {
  await forget(t.context);
  t.context.fake.instead.set('/jwks', (_request, response) => {
    response.setHeader('content-type', 'application/json');
    response.write('{');
  });
  const sent = await send(t.context);
  const { status } = await bring(t.context, sent, { code: 'c', state: sent.state });
  await isRefused(t, status, 'provider_timeout');
  await isOver(t, sent);
});

for (const path of ['/token', '/jwks']) {
  test.serial(`openid attack - ${path} that sends to a private address`, async (t) => {
    await forget(t.context);
    let inner = 0;
    t.context.fake.instead.set('/inner', () => (inner += 1));
    t.context.fake.instead.set(path, (_request, response) => {
      response.writeHead(302, { location: `${t.context.fake.issuer}/inner` }).end();
    });
    const sent = await send(t.context);
    const { status } = await bring(t.context, sent, { code: 'c', state: sent.state });
    await isRefused(t, status, 'provider_redirects');
    t.is(inner, 0);
    await isOver(t, sent);
  });
}

test.serial(
  'openid attack - a provider whose name leads to a private address by now',
  async (t) => {
    const { all, device } = t.context;
    await forget(t.context);
    const { store } = all.rig.plane.services;
    const row = await store.db
      .selectFrom('providers')
      .select('settingsJson')
      .where('name', '=', 'fake')
      .executeTakeFirstOrThrow();
    const settings = { ...(JSON.parse(row.settingsJson) as object), allowPrivate: false };
    await store.write((tx) =>
      tx
        .updateTable('providers')
        .set({ settingsJson: JSON.stringify(settings) })
        .where('name', '=', 'fake')
        .execute(),
    );
    const asked = await all.begin(device, { provider: 'fake' });
    const { status } = await new ScriptedBrowser().follow(asked.url);
    await isRefused(t, status, 'provider_address_refused');
    await forget(t.context);
  },
);

test.serial(
  'openid attack - a sign-in that is begun for one provider and taken to another',
  async (t) => {
    const { all, device } = t.context;
    const asked = await all.begin(device, { provider: 'fake' });
    const { status } = await new ScriptedBrowser().ask(
      `${all.rig.url}/oidc/idp/begin?sign_in=${asked.signIn}`,
    );
    await isRefused(t, status, 'provider_other');
  },
);
