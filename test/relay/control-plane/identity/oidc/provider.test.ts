import anyTest, { type TestFn } from 'ava';
import { keySet, OutsideServer } from '../../signals/transmitter.ts';
import type { OidcServer } from '../../../../support/oidc-server.ts';
import { Rig } from '../../service/rig.ts';
import { providerFor, settingsOf } from './oidc-rig.ts';

const test = anyTest as TestFn<{ rig: Rig; server: OidcServer }>;

test.before(async (t) => {
  t.context.rig = await Rig.start();
  t.context.server = await providerFor(t.context.rig);
});
test.after.always(async (t) => {
  await t.context.server.stop();
  await t.context.rig.stop();
});

test.serial('provider add - asks the provider at once and tells what to register', async (t) => {
  const { rig, server } = t.context;
  const added = await rig.admin('provider.add', settingsOf(server));
  t.like(added, {
    name: 'idp',
    issuer: server.issuer,
    redirectUris: [`${rig.url}/oidc/idp/callback`],
    hasSecret: true,
    hasDeviceCode: true,
    recheckMs: 600_000,
  });
  t.false(JSON.stringify(await rig.admin('provider.list')).includes(server.clientSecret));
  const rows = await rig.plane.services.store.db.selectFrom('providers').selectAll().execute();
  t.false(JSON.stringify(rows).includes(server.clientSecret), 'the store holds it sealed alone');
  const records = await rig.plane.services.audit.read();
  t.false(JSON.stringify(records).includes(server.clientSecret));
  t.true(records.some(({ action }) => action === 'provider.add'));
});

test.serial(
  'provider add - takes no name twice, but new settings where that is said',
  async (t) => {
    const { rig, server } = t.context;
    await t.throwsAsync(rig.admin('provider.add', settingsOf(server)), {
      code: 'ERR_CONFIG_EXISTS',
    });
    const again = settingsOf(server, { title: 'Another title', replace: true });
    t.is((await rig.admin('provider.add', again))['title'], 'Another title');
  },
);

for (const name of ['local', 'scim', 'a/b', '..', 'Idp', '-']) {
  test.serial(`provider add - ${name} may not name a provider`, async (t) => {
    const { rig, server } = t.context;
    await t.throwsAsync(rig.admin('provider.add', settingsOf(server, { name })), {
      code: 'ERR_CONFIG_USAGE',
    });
  });
}

test.serial('provider add - asks no private address where that was not said', async (t) => {
  const { rig, server } = t.context;
  const settings = settingsOf(server, { name: 'other', allowPrivate: false });
  const error = await t.throwsAsync(rig.admin('provider.add', settings), {
    code: 'ERR_RELAY_UNAVAILABLE',
  });
  t.is((error as { reason?: string } | undefined)?.reason, 'outside_address_refused');
});

const metadata = (issuer: string) => ({
  issuer,
  authorization_endpoint: `${issuer}/auth`,
  token_endpoint: `${issuer}/token`,
  jwks_uri: `${issuer}/jwks`,
});

for (const [title, change, expected] of [
  ['of another issuer', { issuer: 'https://elsewhere.example.com' }, 'issuer_wrong'],
  ['without PKCE by S256', { code_challenge_methods_supported: ['plain'] }, 'provider_metadata'],
  [
    'that signs with nothing or a shared secret',
    { id_token_signing_alg_values_supported: ['none', 'HS256'] },
    'provider_metadata',
  ],
  [
    'whose tokens come in the clear',
    { token_endpoint: 'http://x.example.com/t' },
    'outside_url_refused',
  ],
  ['without keys', { keys: 'none' }, 'provider_metadata'],
] as const) {
  test.serial(`provider add - refuses one ${title}`, async (t) => {
    const { rig } = t.context;
    const outside = await OutsideServer.start((request, _body, response) => {
      const issuer = outside.url('').replace(/\/$/, '');
      const isKeys = request.url === '/jwks';
      void keySet().then((keys) => {
        const answer = isKeys ? ('keys' in change ? {} : keys) : { ...metadata(issuer), ...change };
        response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
      });
    });
    t.teardown(() => outside.stop());
    const issuer = outside.url('').replace(/\/$/, '');
    const settings = {
      ...{ name: 'odd', issuer, clientId: 'x', title: 'x', scopes: ['openid'] },
      ...{ ca: outside.caPem, allowPrivate: true },
    };
    const error = await t.throwsAsync(rig.admin('provider.add', settings), {
      code: 'ERR_CONFIG_INVALID',
    });
    t.is((error as { reason?: string } | undefined)?.reason, expected);
  });
}

test.serial(
  'provider remove - its name is not taken over by another issuer while it has users',
  async (t) => {
    const { rig, server } = t.context;
    const { store } = rig.plane.services;
    t.deepEqual(await rig.admin('provider.remove', { name: 'idp' }), {
      name: 'idp',
      sessionsEnded: 0,
    });
    await t.throwsAsync(rig.admin('provider.remove', { name: 'idp' }), {
      code: 'ERR_CONFIG_NOT_FOUND',
    });
    await rig.admin('user.add', { name: 'carol' });
    await store.write((tx) =>
      tx
        .updateTable('users')
        .set({ provider: 'idp', subject: 's' })
        .where('name', '=', 'carol')
        .execute(),
    );
    const other = await providerFor(rig);
    t.teardown(() => other.stop());
    await t.throwsAsync(rig.admin('provider.add', settingsOf(other)), {
      code: 'ERR_CONFIG_EXISTS',
    });
    t.is((await rig.admin('provider.add', settingsOf(server)))['name'], 'idp');
  },
);
