import anyTest, { type TestFn } from 'ava';
import { exportSPKI, SignJWT, UnsecuredJWT } from 'jose';
import { parseEnrolmentCode } from '../../../../protocol/index.ts';
import { enrol } from '../../../../protocol/host/index.ts';
import { TokenIssuer } from '../../../support/token-issuer.ts';
import { Rig, staffPolicy, type DevicePeer } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig; issuer: TokenIssuer; device: DevicePeer }>;

const credentialOf = (issuer: TokenIssuer) => ({
  kind: 'token',
  issuer: issuer.url,
  audience: 'ztna',
  claims: { repository: 'acme/shop', 'kubernetes.namespace': 'shop' },
  ca: issuer.ca.certificatePem,
  allowPrivate: true,
});

async function machineOf(rig: Rig, name: string): Promise<DevicePeer> {
  const invite = { name, ttlMs: 60_000, uses: 1 };
  const { code } = await rig.admin<{ code: string }>('invite.service', invite);
  const { identity } = await enrol({
    code: parseEnrolmentCode(code),
    hostname: 'runner',
    platform: 'linux',
    password: null,
    expectRole: 'device',
  });
  return rig.connectDevice(identity);
}

test.before('a control plane that trusts an issuer for a service', async (t) => {
  const issuer = new TokenIssuer();
  await issuer.start();
  const rig = await Rig.start();
  rig.version = 4;
  await rig.admin('policy.apply', { files: staffPolicy });
  await rig.admin('service.add', {
    name: 'shop-ci',
    groups: ['staff'],
    credential: credentialOf(issuer),
  });
  t.context = { rig, issuer, device: await machineOf(rig, 'shop-ci') };
});

test.after.always('stop', async (t) => {
  await (t.context.rig as Rig | undefined)?.stop();
  t.context.issuer.stop();
});

const signIn = (device: DevicePeer, token: string, service = 'shop-ci') =>
  device.channel.request({ type: 'service_sign_in', service, proof: { kind: 'token', token } });

test.serial(
  'service - a token of the trusted issuer that claims what is asked signs in',
  async (t) => {
    const { issuer, device } = t.context;
    const answer = await signIn(device, await issuer.sign());
    if (answer.type !== 'signed_in') throw new Error(answer.type);
    t.like(answer.session, { user: 'shop-ci', methods: ['token'] });
    const { asked } = issuer;
    await signIn(device, await issuer.sign({ aud: ['other', 'ztna'] }));
    t.is(issuer.asked, asked, 'keys are kept');
  },
);

const hour = 3_600;
const now = Math.floor(Date.now() / 1_000);

const refusals: readonly (readonly [
  what: string,
  reason: string,
  make: (issuer: TokenIssuer) => Promise<string> | string,
])[] = [
  ['of another issuer', 'token_issuer', (i) => i.sign({ iss: 'https://issuer.example' })],
  ['for somebody else', 'token_audience', (i) => i.sign({ aud: 'elsewhere' })],
  ['that has ended', 'token_expired', (i) => i.sign({ iat: now - hour, exp: now - 600 })],
  ['without an end', 'token_expired', (i) => i.sign({ exp: undefined as never })],
  ['from the future', 'token_early', (i) => i.sign({ iat: now + hour, exp: now + 2 * hour })],
  ['that is not valid yet', 'token_early', (i) => i.sign({ nbf: now + hour })],
  ['that lasts for days', 'token_lasting', (i) => i.sign({ exp: now + 48 * hour })],
  ['of another repository', 'token_claims', (i) => i.sign({ ['repository']: 'evil/shop' })],
  ['without a nested claim', 'token_claims', (i) => i.sign({ ['kubernetes']: {} })],
  ['by another key of that name', 'token_signature', (i) => i.sign({}, {}, i.other.privateKey)],
  ['by a key that nobody serves', 'token_signature', (i) => i.sign({}, { kid: 'two' })],
  ['of a logout', 'token_type', (i) => i.sign({}, { typ: 'logout+jwt' })],
  ['without signature', 'token_algorithm', (i) => new UnsecuredJWT(i.claims).encode()],
  [
    'by the public key as a secret',
    'token_algorithm',
    async (i) =>
      new SignJWT(i.claims)
        .setProtectedHeader({ alg: 'HS256', kid: 'one' })
        .sign(Buffer.from(await exportSPKI(i.keys.publicKey))),
  ],
  ['that is none', 'token_malformed', () => 'not.a.token'],
];

for (const [what, reason, make] of refusals) {
  test.serial(`service - a token ${what} is refused: ${reason}`, async (t) => {
    const { rig, issuer, device } = t.context;
    const error = await t.throwsAsync(signIn(device, await make(issuer)));
    t.like(error, { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
    await rig.settled();
    const rows = await rig.plane.services.audit.read();
    const row = rows.filter(({ outcome }) => outcome === 'refused').at(-1);
    t.is(row?.userName, 'shop-ci');
    t.is((JSON.parse(row?.detailsJson ?? '{}') as { reason: unknown }).reason, reason);
  });
}

test.serial(
  'service - an issuer is asked at once, and not at a private address unless that is meant',
  async (t) => {
    const { rig, issuer } = t.context;
    const credential = credentialOf(issuer);
    const add = (changes: object) =>
      rig.admin('service.add', {
        name: 'never',
        groups: [],
        credential: { ...credential, ...changes },
      });
    t.like(await t.throwsAsync(add({ allowPrivate: false })), {
      reason: 'outside_address_refused',
    });
    t.like(await t.throwsAsync(add({ issuer: `${issuer.url}/` })), { reason: 'issuer_wrong' });
    t.like(await t.throwsAsync(add({ issuer: 'http://localhost:1' })), {
      reason: 'outside_url_refused',
    });
    t.like(await t.throwsAsync(add({ claims: {} })), { code: 'ERR_CONFIG_USAGE' });
    await t.throwsAsync(rig.admin('service.show', { name: 'never' }));
  },
);

test.serial('service - keys of 10 MB are not read, and nobody is let in meanwhile', async (t) => {
  const { rig, issuer } = t.context;
  issuer.jwks = `{"keys":[],"more":"${'x'.repeat(10_485_760)}"}`;
  const credential = { ...credentialOf(issuer), jwks: `${issuer.url}/large` };
  await rig.admin('service.add', { name: 'large', groups: [], credential });
  const device = await machineOf(rig, 'large');
  const error = await t.throwsAsync(signIn(device, await issuer.sign(), 'large'));
  t.like(error, { code: 'ERR_RELAY_UNAVAILABLE' });
  issuer.jwks = undefined;
});
