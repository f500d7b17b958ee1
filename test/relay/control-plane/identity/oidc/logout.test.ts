import { createHash, randomUUID } from 'node:crypto';
import anyTest, { type TestFn } from 'ava';
import { SignJWT, UnsecuredJWT, type JWTPayload } from 'jose';
import { ScriptedBrowser } from '../../../../support/scripted-browser.ts';
import { keySet, OutsideServer, sharedKey } from '../../signals/transmitter.ts';
import type { ConnectorPeer, DevicePeer } from '../../service/rig.ts';
import { OidcRig, openTunnel, publishWiki, signedInAt } from './oidc-rig.ts';

const test = anyTest as TestFn<{ all: OidcRig; connector: ConnectorPeer; fake: OutsideServer }>;

const personOf = (name: string) => ({
  claims: { email: `${name}@example.com`, groups: ['staff'] },
});
const people = { ann: personOf('ann'), ben: personOf('ben') };

test.before(async (t) => {
  t.context.all = await OidcRig.start({ people }, {}, { hasLogout: true });
  t.context.connector = await publishWiki(t.context.all);
  const fake = await OutsideServer.start((request, _body, response) => {
    const issuer = fake.url('').replace(/\/$/, '');
    void keySet().then((keys) => {
      const metadata = {
        issuer,
        authorization_endpoint: `${issuer}/auth`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/jwks`,
      };
      const answer = request.url === '/jwks' ? keys : metadata;
      response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
    });
  });
  t.context.fake = fake;
  await t.context.all.rig.admin('provider.add', {
    ...{ name: 'fake', issuer: issuerOf(fake), clientId: 'ztna', title: 'x', scopes: ['openid'] },
    ...{ ca: fake.caPem, allowPrivate: true },
  });
});
test.after.always(async (t) => {
  await t.context.all.stop();
  await t.context.fake.stop();
});

const issuerOf = (fake: OutsideServer) => fake.url('').replace(/\/$/, '');

function ended(device: DevicePeer): Promise<string> {
  return device.find((message) => (message.type === 'session_ended' ? message.reason : undefined));
}

test.serial(
  'sign_out - tells the provider, and where the person ends the session there',
  async (t) => {
    const { all, connector } = t.context;
    const device = await all.device('ann@example.com');
    await all.signIn(device, 'ann');
    const tunnel = await openTunnel(all, connector, device);
    const answer = await device.channel.request({ type: 'sign_out' });
    if (answer.type !== 'signed_out') throw new Error(answer.type);
    const url = new URL(answer.logoutUrl ?? '');
    t.is(url.origin, all.server.issuer);
    t.truthy(url.searchParams.get('id_token_hint'));
    await device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === tunnel ? true : undefined,
    );
    await all.server.untilAsked('POST /token/revocation');
    t.deepEqual(
      await all.rig.plane.services.store.db.selectFrom('providerGrants').selectAll().execute(),
      [],
    );
  },
);

test.serial('sign_out - of a local user names no page', async (t) => {
  const device = await t.context.all.rig.device('local-lou');
  t.like(await device.channel.request({ type: 'sign_out' }), {
    type: 'signed_out',
    logoutUrl: null,
  });
});

test.serial(
  'back-channel logout - what a person ends at the provider ends here at once',
  async (t) => {
    const { all, connector } = t.context;
    const device = await all.device('ben@example.com');
    const browser = all.server.browserOf('ben');
    const asked = await all.begin(device);
    const { url } = await all.visit(asked, browser);
    t.is((await all.finish(device, asked, url.searchParams.get('ticket'))).type, 'signed_in');
    const tunnel = await openTunnel(all, connector, device);
    await all.server.logOut(`${all.server.issuer}/session/end`, browser);
    t.is(await ended(device), 'provider_logout');
    const reason = await device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === tunnel ? message.reason : undefined,
    );
    t.is(reason, 'provider_logout');
  },
);

const event = { 'http://schemas.openid.net/event/backchannel-logout': {} };

function claimsOf(fake: OutsideServer, more: JWTPayload = {}): JWTPayload {
  const iat = Math.floor(Date.now() / 1_000);
  const claims = { iss: issuerOf(fake), aud: 'ztna', jti: randomUUID(), iat, sub: 'ben' };
  return { ...claims, events: event, ...more };
}

function withoutSubject(claims: JWTPayload): JWTPayload {
  delete claims.sub;
  return claims;
}

const sign = (claims: JWTPayload, alg = 'RS256') =>
  new SignJWT(claims)
    .setProtectedHeader({ alg, kid: 'k1' })
    .sign(alg === 'HS256' ? createHash('sha256').update('shared').digest() : sharedKey());

async function tell({ rig }: OidcRig, token: string): Promise<number> {
  const url = `${rig.url}/oidc/fake/logout`;
  const { status } = await new ScriptedBrowser().ask(url, { logout_token: token });
  return status;
}

async function lastReason({ rig }: OidcRig): Promise<unknown> {
  const rows = await rig.plane.services.audit.read();
  const row = rows.findLast(
    ({ action, outcome }) => action === 'session.end' && outcome === 'refused',
  );
  return (JSON.parse(row?.detailsJson ?? '{}') as { reason?: unknown }).reason;
}

test.serial('back-channel logout - a token serves once', async (t) => {
  const { all, fake } = t.context;
  const token = await sign(claimsOf(fake));
  t.is(await tell(all, token), 200);
  t.is(await tell(all, token), 400);
  t.is(await lastReason(all), 'token_replayed');
});

test.serial(
  'back-channel logout - names a session, and means all of the person’s that have no name',
  async (t) => {
    const { all, fake } = t.context;
    const named = await signedInAt(all, 'fake', 'gil-1', { subject: 'gil', sid: 's-1' });
    const unnamed = await signedInAt(all, 'fake', 'gil-2', { subject: 'gil' });
    await signedInAt(all, 'fake', 'gil-3', { subject: 'gil', sid: 's-2' });
    await signedInAt(all, 'fake', 'hal', { subject: 'hal' });
    t.is(await tell(all, await sign(claimsOf(fake, { sub: 'gil', sid: 's-1' }))), 200);
    t.is(await ended(named), 'provider_logout');
    t.is(await ended(unnamed), 'provider_logout');
    const left = async () => {
      const { db } = all.rig.plane.services.store;
      const grants = db.selectFrom('providerGrants').innerJoin('users', 'users.id', 'userId');
      const rows = grants.select('name').where('providerGrants.provider', '=', 'fake');
      return (await rows.execute()).map(({ name }) => name).sort();
    };
    t.deepEqual(await left(), ['gil-3', 'hal']);
    const bySession = withoutSubject(claimsOf(fake, { sid: 's-2' }));
    t.is(await tell(all, await sign(bySession)), 200);
    t.deepEqual(await left(), ['hal']);
    t.is(await tell(all, await sign(claimsOf(fake, { sub: 'hal' }))), 200);
    t.deepEqual(await left(), []);
  },
);

for (const [title, make, reason] of [
  [
    'of another issuer',
    (fake) => sign(claimsOf(fake, { iss: 'https://x.example.com' })),
    'issuer_wrong',
  ],
  ['for somebody else', (fake) => sign(claimsOf(fake, { aud: 'other' })), 'audience_wrong'],
  ['of long ago', (fake) => sign(claimsOf(fake, { iat: 1_600_000_000 })), 'token_expired'],
  ['that is an ID token', (fake) => sign(claimsOf(fake, { events: {} })), 'token_malformed'],
  ['with a nonce', (fake) => sign(claimsOf(fake, { nonce: 'n' })), 'token_malformed'],
  ['about nobody', (fake) => sign(withoutSubject(claimsOf(fake))), 'token_malformed'],
  ['signed with a shared secret', (fake) => sign(claimsOf(fake), 'HS256'), 'algorithm_refused'],
  ['that nobody signed', (fake) => new UnsecuredJWT(claimsOf(fake)).encode(), 'algorithm_refused'],
  [
    'that was changed',
    async (fake) => `${(await sign(claimsOf(fake))).slice(0, -8)}AAAAAAAA`,
    'signature_wrong',
  ],
  ['that is none', () => 'nonsense', 'token_malformed'],
] as readonly [string, (fake: OutsideServer) => string | Promise<string>, string][]) {
  test.serial(`back-channel logout - refuses a token ${title}`, async (t) => {
    const { all, fake } = t.context;
    t.is(await tell(all, await make(fake)), 400);
    t.is(await lastReason(all), reason);
  });
}
