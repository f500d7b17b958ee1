import anyTest, { type TestFn } from 'ava';
import { newId, type DeviceId, type SessionId } from '../../../../../protocol/index.ts';
import { healthMetrics } from '../../../../../relay/control-plane/health/metrics.ts';
import { recheckSessions } from '../../../../../relay/control-plane/identity/oidc/recheck.ts';
import type { ConnectorPeer } from '../../service/rig.ts';
import { ScriptedBrowser } from '../../../../support/scripted-browser.ts';
import { FakeProvider } from './fake-provider.ts';
import {
  askSignIn,
  finishSignIn,
  followToCommand,
  hastenChecks,
  ofProvider,
  OidcRig,
  openTunnel,
  publishWiki,
  signedInAt,
} from './oidc-rig.ts';

const test = anyTest as TestFn<{ all: OidcRig; connector: ConnectorPeer }>;

const personOf = (name: string, groups: readonly string[] = ['staff']) => ({
  claims: { email: `${name}@example.com`, groups },
});
const people = {
  ann: personOf('ann'),
  ben: personOf('ben'),
  cat: personOf('cat'),
  dan: personOf('dan'),
};

test.before(async (t) => {
  t.context.all = await OidcRig.start({ people });
  t.context.connector = await publishWiki(t.context.all);
});
test.after.always(async (t) => {
  await t.context.all.stop();
});

async function grantOf({ rig }: OidcRig, name: string) {
  return rig.plane.services.store.db
    .selectFrom('providerGrants')
    .innerJoin('users', 'users.id', 'providerGrants.userId')
    .selectAll('providerGrants')
    .where('users.name', '=', `${name}@example.com`)
    .executeTakeFirst();
}

/** Resolves once the provider was asked about the user, and what came of it is written down. */
async function untilAsked(all: OidcRig, name: string) {
  for (;;) {
    const grant = await grantOf(all, name);
    if (grant && grant.nextCheckAtMs > 0 && grant.claimedUntilMs === 0) return grant;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

test.serial(
  'recheck - the refresh token is another one each time, and the session goes on',
  async (t) => {
    const { all } = t.context;
    const device = await all.device('ann@example.com');
    await all.signIn(device, 'ann');
    const before = await grantOf(all, 'ann');
    for (let count = 0; count < 2; count++) {
      await hastenChecks(all);
      t.is((await untilAsked(all, 'ann')).lastError, null);
    }
    t.not((await grantOf(all, 'ann'))?.sealedTokens, before?.sealedTokens);
    const status = await device.channel.request({ type: 'status' });
    t.true(status.type === 'status' && status.session !== null);
  },
);

test.serial('recheck - of several control planes one asks about a session', async (t) => {
  const { all } = t.context;
  const { services } = all.rig.plane;
  const tokens = () => all.server.requests.filter((one) => one === 'POST /token').length;
  const before = tokens();
  await hastenChecks(all);
  await Promise.all([1, 2, 3].map(() => recheckSessions(services)));
  await untilAsked(all, 'ann');
  t.is(tokens(), before + 1);
  await recheckSessions(services); // it is nobody's turn
  t.is(tokens(), before + 1);
});

test.serial('recheck - a group that was lost at the provider ends what it allowed', async (t) => {
  const { all, connector } = t.context;
  const device = await all.device('ben@example.com');
  await all.signIn(device, 'ben');
  const tunnel = await openTunnel(all, connector, device);
  all.server.people.set('ben', personOf('ben', []));
  await hastenChecks(all);
  const reason = await device.find((message) =>
    message.type === 'tunnel_ended' && message.tunnel === tunnel ? message.reason : undefined,
  );
  t.is(reason, 'group_changed');
  t.deepEqual((await all.rig.admin('user.show', { name: 'ben@example.com' }))['groups'], []);
});

test.serial(
  'recheck - of a provider whose refresh brings no ID token the groups are asked for',
  async (t) => {
    const { all } = t.context;
    const { rig } = all;
    const fake = await FakeProvider.start();
    t.teardown(() => fake.stop());
    await rig.admin('provider.add', fake.settings({ groupsClaim: 'groups' }));
    const device = await ofProvider(rig, 'eve@example.com', 'fake');
    const asked = await askSignIn(device, { provider: 'fake' });
    const browser = new ScriptedBrowser();
    const { url } = await browser.follow(asked.url, ({ pathname }) => pathname === '/auth');
    fake.nonce = url.searchParams.get('nonce') ?? '';
    fake.wishes = { claims: { groups: ['staff', 'ops'] } };
    const state = url.searchParams.get('state') ?? '';
    const answer = `${rig.url}/oidc/fake/callback?code=c&state=${state}`;
    const back = await followToCommand(browser, answer);
    await finishSignIn(device, asked, back.url.searchParams.get('ticket'));
    const groups = async () =>
      (await rig.admin('user.show', { name: 'eve@example.com' }))['groups'] as string[];
    t.deepEqual(await groups(), ['ops', 'staff']);

    fake.instead.set('/token', (_request, response) => {
      const tokens = { access_token: 'opaque', token_type: 'Bearer', expires_in: 600 };
      response.setHeader('content-type', 'application/json').end(JSON.stringify(tokens));
    });
    fake.userInfo = { email: 'eve@example.com', groups: ['staff'] };
    await hastenChecks(all);
    while ((await groups()).length > 1) await new Promise((resolve) => setTimeout(resolve, 50));
    t.deepEqual(await groups(), ['staff']);
    await rig.admin('provider.remove', { name: 'fake' });
  },
);

test.serial('recheck - a refused refresh ends the session and freezes its tunnels', async (t) => {
  const { all, connector } = t.context;
  const device = await all.device('cat@example.com');
  await all.signIn(device, 'cat');
  const tunnel = await openTunnel(all, connector, device);
  const cat = all.server.people.get('cat');
  all.server.people.delete('cat'); // disabled there
  await hastenChecks(all);
  const reason = await device.find((message) =>
    message.type === 'session_ended' ? message.reason : undefined,
  );
  t.is(reason, 'provider_refused');
  const held = await device.find((message) =>
    message.type === 'tunnel_suspended' && message.tunnel === tunnel ? message : undefined,
  );
  t.like(held, { reason: 'sign_in_needed', fix: 'sign in again: ztna login' });
  const record = (await all.rig.plane.services.audit.read({ user: 'cat@example.com' })).find(
    ({ action }) => action === 'session.end',
  );
  t.is(record?.actor, 'provider:idp');

  // Enabled again, a sign-in is all that it takes.
  if (cat) all.server.people.set('cat', cat);
  await all.signIn(device, 'cat');
  await device.find((message) =>
    message.type === 'tunnel_ready' && message.tunnel === tunnel ? true : undefined,
  );
});

test.serial(
  'recheck - a provider that cannot be asked is no refusal, and that is visible',
  async (t) => {
    const { all } = t.context;
    const { rig } = all;
    const device = await all.device('dan@example.com');
    await all.signIn(device, 'dan');
    all.server.isDown = true;
    await hastenChecks(all);
    const grant = await untilAsked(all, 'dan');
    t.is(grant.lastError, 'provider_unreachable');
    t.true((grant.unreachableSinceMs ?? 0) > 0);
    const status = await device.channel.request({ type: 'status' });
    t.true(status.type === 'status' && status.session !== null);
    const [row] = await rig.admin<Record<string, unknown>[]>('provider.list');
    t.like(row, { lastError: 'provider_unreachable' });
    const metric = (await healthMetrics(rig.plane.services)).find(
      ({ name }) => name === 'ztna_provider_unreachable_sessions',
    );
    t.true(metric?.type === 'gauge' && Number(metric.values[0]?.value) >= 1);
    const said = () => rig.logLines.filter((line) => line.includes('provider_unreachable')).length;
    t.is(said(), 1);

    all.server.isDown = false;
    await hastenChecks(all);
    t.like(await untilAsked(all, 'dan'), { lastError: null, unreachableSinceMs: null });
    t.is(said(), 1);
  },
);

/** A provider whose answers to refresh tokens wait until a test gives them. */
async function heldProvider({ rig }: OidcRig, name: string) {
  const fake = await FakeProvider.start();
  await rig.admin('provider.add', fake.settings({ name }));
  const held = new Map<string, (status: number, body: object) => void>();
  fake.instead.set('/token', (_request, response, body) => {
    held.set(new URLSearchParams(body).get('refresh_token') ?? '', (status, answer) => {
      response.statusCode = status;
      response.setHeader('content-type', 'application/json').end(JSON.stringify(answer));
    });
  });
  return { fake, held };
}

async function until(isSo: () => boolean | Promise<boolean>) {
  while (!(await isSo())) await new Promise((resolve) => setTimeout(resolve, 20));
}

const isNew = { access_token: 'opaque', token_type: 'Bearer', refresh_token: 'another' };

test.serial('recheck - asks with no tokens that another control plane asked with', async (t) => {
  const { all } = t.context;
  const { services } = all.rig.plane;
  const { store, sealer } = services;
  const { fake, held } = await heldProvider(all, 'slow');
  t.teardown(() => fake.stop());
  const names = ['f-1', 'f-2', 'f-3', 'f-4', 'f-5', 'f-6'];
  for (const name of names)
    await signedInAt(all, 'slow', name, { subject: 'eve', refreshToken: name });
  const grants = store.db
    .selectFrom('providerGrants')
    .innerJoin('users', 'users.id', 'providerGrants.userId')
    .select(['users.name', 'sessionId', 'sealedTokens', 'lastOkAtMs', 'nextCheckAtMs'])
    .where('providerGrants.provider', '=', 'slow');
  const grantsNow = async () =>
    new Map((await grants.execute()).map((grant) => [grant.name, grant]));
  await hastenChecks(all);
  const turn = recheckSessions(services);
  await until(() => held.size === 4);

  // What another control plane does whose turn it is, too: to one that is asked about, and to one that waits.
  const [done, refused, late, last] = [...held.keys()] as [string, string, string, string];
  const [claimed, rotated] = names.filter((name) => !held.has(name)) as [string, string];
  const before = await grantsNow();
  const others = new Map<string, string>();
  const nowMs = services.clock.nowMs();
  for (const name of [refused, late, rotated]) {
    const sessionId = before.get(name)?.sessionId ?? ('' as SessionId);
    const tokens = JSON.stringify({ refreshToken: `other ${name}`, idToken: '' });
    const sealedTokens = sealer.seal(tokens, `tokens ${sessionId}`);
    others.set(name, sealedTokens);
    await store.write((tx) =>
      tx
        .updateTable('providerGrants')
        .set({ sealedTokens, nextCheckAtMs: nowMs + 600_000, claimedUntilMs: 0 })
        .where('sessionId', '=', sessionId)
        .execute(),
    );
  }
  await store.write((tx) =>
    tx
      .updateTable('providerGrants')
      .set({ claimedUntilMs: nowMs + 90_000 })
      .where('sessionId', '=', before.get(claimed)?.sessionId ?? ('' as SessionId))
      .execute(),
  );
  held.get(refused)?.(400, { error: 'invalid_grant' });
  held.get(late)?.(200, isNew);
  held.get(done)?.(200, isNew);
  held.get(last)?.(400, { error: 'invalid_grant' });
  await until(() => held.has(`other ${refused}`)); // a refusal of what counts no more ends nothing
  held.get(`other ${refused}`)?.(200, isNew);
  await turn;
  await until(async () => !(await grantsNow()).has(last)); // and one of what counts does
  const after = await grantsNow();
  t.false(held.has(claimed));
  t.false(held.has(rotated));
  t.is(after.get(late)?.sealedTokens, others.get(late));
  t.is(after.get(rotated)?.sealedTokens, others.get(rotated));
  t.not(after.get(done)?.sealedTokens, before.get(done)?.sealedTokens);
  t.deepEqual(
    [...after.keys()].sort(),
    names.filter((name) => name !== last),
  );
  await all.rig.admin('provider.remove', { name: 'slow' });
});

test.serial('recheck - a session whose provider was removed is refused', async (t) => {
  const { all } = t.context;
  const { store } = all.rig.plane.services;
  const fake = await FakeProvider.start();
  t.teardown(() => fake.stop());
  await all.rig.admin('provider.add', fake.settings({ name: 'gone' }));
  const device = await signedInAt(all, 'gone', 'gus', { refreshToken: 'r' });
  await store.write((tx) => tx.deleteFrom('providers').where('name', '=', 'gone').execute());
  await hastenChecks(all);
  const reason = await device.find((message) =>
    message.type === 'session_ended' ? message.reason : undefined,
  );
  t.is(reason, 'provider_refused');
});

test.serial('recheck - a provider with many sessions leaves the others their share', async (t) => {
  const { all } = t.context;
  const { store, clock } = all.rig.plane.services;
  const { fake, held } = await heldProvider(all, 'busy');
  t.teardown(() => fake.stop());
  const device = await signedInAt(all, 'busy', 'many', { subject: 'eve', refreshToken: 'r' });
  const grants = store.db.selectFrom('providerGrants').selectAll();
  const ofBusy = grants.where('provider', '=', 'busy');
  const grant = await ofBusy.executeTakeFirstOrThrow();
  const session = await store.db
    .selectFrom('sessions')
    .selectAll()
    .where('deviceId', '=', device.identity.id as DeviceId)
    .where('endedAtMs', 'is', null)
    .executeTakeFirstOrThrow();
  const { sealer } = all.rig.plane.services;
  await store.write(async (tx) => {
    for (let count = 0; count < 100; count++) {
      const id = newId('session');
      const tokens = JSON.stringify({ refreshToken: id, idToken: '' });
      const sealedTokens = sealer.seal(tokens, `tokens ${id}`);
      await tx
        .insertInto('sessions')
        .values({ ...session, id })
        .execute();
      await tx
        .insertInto('providerGrants')
        .values({ ...grant, sessionId: id, sealedTokens })
        .execute();
    }
    await tx
      .updateTable('providerGrants')
      .set({ nextCheckAtMs: 0, claimedUntilMs: 0 })
      .where('provider', '=', 'busy')
      .execute();
    await tx
      .updateTable('providerGrants')
      .set({ nextCheckAtMs: 1, claimedUntilMs: 0 }) // last of all
      .where('provider', '=', 'idp')
      .execute();
  });
  const asked = grants.where('provider', '=', 'idp').where('nextCheckAtMs', '>', 1);
  await until(async () => held.size > 0 && (await asked.execute()).length > 0);
  t.true(held.size <= 4);

  const left = ofBusy.where('nextCheckAtMs', '<=', clock.nowMs()).where('claimedUntilMs', '=', 0);
  t.true((await left.execute()).length > 0, 'more than its share');
  for (const answer of held.values()) answer(503, {});
  await until(async () => (await ofBusy.where('lastError', 'is', null).execute()).length === 0);
  t.true(held.size <= 4, 'one failure is enough');
  await all.rig.admin('provider.remove', { name: 'busy' });
});

test.serial('recheck - what was sealed for one session opens for no other', async (t) => {
  const { all } = t.context;
  const { store, sealer } = all.rig.plane.services;
  const rows = await store.db.selectFrom('providerGrants').selectAll().execute();
  const [one, other] = rows;
  if (!one || !other) throw new Error('two sessions are needed');
  t.notThrows(() => sealer.open(one.sealedTokens, `tokens ${one.sessionId}`));
  t.throws(() => sealer.open(one.sealedTokens, `tokens ${other.sessionId}`));
});
