import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import anyTest, { type TestFn } from 'ava';
import type { JWTPayload } from 'jose';
import { launchers, runProgram } from '../../../../support/program.ts';
import { ScriptedBrowser } from '../../../../support/scripted-browser.ts';
import { Rig } from '../../service/rig.ts';
import { FakeProvider } from './fake-provider.ts';
import { askSignIn, finishSignIn, followToCommand, ofProvider } from './oidc-rig.ts';

const test = anyTest as TestFn<{ rig: Rig }>;

test.before(async (t) => {
  t.context.rig = await Rig.start({ maxDevicesPerUser: 50 });
  t.context.rig.version = 4;
});
test.after.always(async (t) => {
  await t.context.rig.stop();
});

const operations = readFileSync(
  new URL('../../../../../docs/operations.md', import.meta.url),
  'utf8',
);

/** The command as operators read it, but for where the provider and its secret are. */
function commandOf(name: string, fake: FakeProvider, secret: string, ca: string): string[] {
  const line =
    new RegExp(`^ztna-relay (provider add ${name} .*)$`, 'm').exec(operations)?.[1] ?? '';
  const words = line.split(' ');
  const put = (option: string, value: string) => {
    const at = words.indexOf(option);
    if (at === -1) throw new Error(`no ${option} in: ${line}`);
    words[at + 1] = value;
  };
  put('--issuer', fake.issuer);
  put('--client-secret-file', secret);
  return [...words, '--ca', ca, '--allow-private'];
}

interface Shape {
  readonly name: string;
  readonly audience: string;
  /** What the provider says of itself besides. */
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly claims: JWTPayload;
  readonly userInfo?: Readonly<Record<string, unknown>>;
  readonly user: string;
  readonly groups: readonly string[];
  readonly methods: readonly string[];
  readonly asked: Readonly<Record<string, string>>;
}

const none = { auth_time: undefined, email: undefined };

const shapes: readonly Shape[] = [
  {
    name: 'keycloak',
    audience: 'ztna',
    metadata: {
      authorization_response_iss_parameter_supported: false,
      acr_values_supported: ['0', '1', '2'],
      token_endpoint_auth_methods_supported: ['private_key_jwt', 'client_secret_post'],
    },
    claims: {
      ...{ preferred_username: 'Ada', email: 'ada@example.com', email_verified: false, acr: '2' },
      realm_access: { roles: ['default-roles-staff', 'ztna-engineering', 'offline_access'] },
    },
    user: 'ada',
    groups: ['engineering'],
    methods: ['mfa'],
    asked: { scope: 'openid profile email' },
  },
  {
    name: 'entra',
    audience: '55555555-6666-7777-8888-999999999999',
    metadata: { token_endpoint_auth_methods_supported: ['client_secret_post', 'private_key_jwt'] },
    claims: {
      ...{ preferred_username: 'Grace@Example.com', oid: 'an-id', tid: 'a-tenant', ver: '2.0' },
      groups: ['aaaaaaaa-0000-0000-0000-000000000001', 'aaaaaaaa-0000-0000-0000-000000000002'],
    },
    user: 'grace@example.com',
    groups: ['engineering'],
    methods: [],
    asked: { scope: 'openid profile email offline_access' },
  },
  {
    name: 'okta',
    audience: '0oa1example',
    metadata: { token_endpoint_auth_methods_supported: ['client_secret_basic'] },
    claims: { ...none, acr: 'urn:okta:loa:2fa:any', amr: ['pwd', 'mfa', 'otp'], idp: 'an-idp' },
    // Its ID tokens leave to this what was asked for by scopes.
    userInfo: { email: 'kate@example.com', groups: ['ztna-engineering', 'Everyone'] },
    user: 'kate@example.com',
    groups: ['engineering'],
    methods: ['pwd', 'mfa', 'otp'],
    asked: { scope: 'openid profile email offline_access' },
  },
  {
    name: 'google',
    audience: '123-example.apps.googleusercontent.com',
    metadata: {},
    claims: { ...none, email: 'Lin@example.com', email_verified: true, hd: 'example.com' },
    user: 'lin@example.com',
    groups: [],
    methods: [],
    asked: { access_type: 'offline', prompt: 'consent', hd: 'example.com' },
  },
];

for (const shape of shapes) {
  test.serial(`provider add - the command for ${shape.name} signs its users in`, async (t) => {
    const { rig } = t.context;
    const fake = await FakeProvider.start(`subject-at-${shape.name}`);
    t.teardown(() => fake.stop());
    fake.metadata = shape.metadata;
    fake.userInfo = shape.userInfo ?? {};
    const ca = join(rig.dir, `${shape.name}.pem`);
    const secret = join(rig.dir, `${shape.name}.secret`);
    await writeFile(ca, fake.caPem);
    await writeFile(secret, 'a-secret-of-the-test\n', { mode: 0o600 });
    const added = await runProgram(launchers.relay, [
      ...commandOf(shape.name, fake, secret, ca),
      ...['--dir', rig.dir],
    ]);
    t.is(added.code, 0, added.stderr);
    t.true(added.stderr.includes(`${rig.url}/oidc/${shape.name}/callback`));

    const device = await ofProvider(rig, shape.user, shape.name);
    const asked = await askSignIn(device, { provider: shape.name });
    const browser = new ScriptedBrowser();
    const { url } = await browser.follow(asked.url, ({ pathname }) => pathname === '/auth');
    for (const [name, value] of Object.entries(shape.asked)) {
      t.is(url.searchParams.get(name), value, name);
    }
    fake.nonce = url.searchParams.get('nonce') ?? '';
    fake.wishes = { claims: { aud: shape.audience, ...shape.claims } };
    const state = url.searchParams.get('state') ?? '';
    const answer = `${rig.url}/oidc/${shape.name}/callback?code=c&state=${state}`;
    const back = await followToCommand(browser, answer);
    const done = await finishSignIn(device, asked, back.url.searchParams.get('ticket'));
    if (done.type !== 'signed_in') throw new Error(done.type);
    t.is(done.session.user, shape.user);
    t.deepEqual(done.session.methods, shape.methods);
    t.deepEqual((await rig.admin('user.show', { name: shape.user }))['groups'], shape.groups);
  });
}

test.serial('provider add - who is in more groups than Entra tells is refused', async (t) => {
  const { rig } = t.context;
  const fake = await FakeProvider.start('in-too-many');
  t.teardown(() => fake.stop());
  await rig.admin('provider.add', fake.settings({ groupsClaim: 'groups' }));
  const device = await ofProvider(rig, 'eve@example.com', 'fake');
  const asked = await askSignIn(device, { provider: 'fake' });
  const browser = new ScriptedBrowser();
  const { url } = await browser.follow(asked.url, ({ pathname }) => pathname === '/auth');
  fake.nonce = url.searchParams.get('nonce') ?? '';
  fake.wishes = { claims: { _claim_names: { groups: 'src1' }, _claim_sources: { src1: {} } } };
  const state = url.searchParams.get('state') ?? '';
  const { status, text } = await followToCommand(
    browser,
    `${rig.url}/oidc/fake/callback?code=c&state=${state}`,
  );
  t.is(status, 403);
  t.regex(text, /too many groups/);
});
