import anyTest, { type TestFn } from 'ava';
import { disableUser, enableUser } from '../../../../relay/control-plane/access/cut-off.ts';
import { getUser } from '../../../../relay/control-plane/api/lookup.ts';
import { ScimRig, userSchema } from './scim-rig.ts';

const test = anyTest as TestFn<{ scim: ScimRig }>;

test.before('a control plane and a directory', async (t) => {
  t.context.scim = await ScimRig.start();
});

test.after.always('stop', async (t) => {
  await (t.context.scim as ScimRig | undefined)?.stop();
});

test.serial('scim - a request without the token is refused and on record', async (t) => {
  const { scim } = t.context;
  for (const authorization of ['', 'Bearer ', 'Bearer of-nothing', `Basic ${scim.token}`]) {
    const answer = await scim.ask('GET', 'Users', undefined, { authorization });
    t.is(answer.status, 401, authorization);
    t.is(answer.headers['www-authenticate'], 'Bearer');
    t.deepEqual(answer.body['schemas'], ['urn:ietf:params:scim:api:messages:2.0:Error']);
  }
  await scim.rig.settled();
  const rows = await scim.rig.plane.services.audit.read();
  t.is(rows.filter(({ action }) => action === 'scim.request').length, 4);
});

test.serial('scim-token - one that was removed opens nothing', async (t) => {
  const { scim } = t.context;
  const { token } = await scim.rig.admin<{ token: string }>('scim-token.add', { name: 'former' });
  const headers = { authorization: `Bearer ${token}` };
  t.is((await scim.ask('GET', 'Users', undefined, headers)).status, 200);
  const tokens = await scim.rig.admin<Record<string, unknown>[]>('scim-token.list');
  t.deepEqual(
    tokens.map(({ name }) => name),
    ['former', 'okta'],
  );
  t.false(JSON.stringify(tokens).includes(token));
  t.is(typeof tokens[0]?.['lastUsedAtMs'], 'number');
  await scim.rig.admin('scim-token.remove', { name: 'former' });
  t.is((await scim.ask('GET', 'Users', undefined, headers)).status, 401);
});

test.serial('scim - tells what it can do', async (t) => {
  const { scim } = t.context;
  const config = await scim.ask('GET', 'ServiceProviderConfig');
  t.like(config.body, { patch: { supported: true }, filter: { supported: true, maxResults: 200 } });
  const types = await scim.ask('GET', 'ResourceTypes');
  t.is(types.body['totalResults'], 2);
  t.is((await scim.ask('GET', 'ResourceTypes/Group')).body['endpoint'], '/Groups');
  t.is((await scim.ask('GET', `Schemas/${userSchema}`)).body['name'], 'User');
  t.is((await scim.ask('GET', 'Schemas/urn:nothing')).status, 404);
  t.is((await scim.ask('POST', 'Bulk', {})).status, 501);
  t.is((await scim.ask('POST', 'Users/some/more', {})).status, 404);
});

test.serial('scim - adds, finds, changes and removes a user', async (t) => {
  const { scim } = t.context;
  const made = await scim.ask('POST', 'Users', {
    schemas: [userSchema, 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User'],
    userName: 'Barbara.Jensen@Example.com',
    externalId: '701984',
    name: { givenName: 'Barbara', familyName: 'Jensen' },
    emails: [{ value: 'bjensen@example.com', type: 'work', primary: true }],
    active: true,
    password: 'not-kept-anywhere',
    locale: 'en-US',
  });
  t.is(made.status, 201);
  t.like(made.body, {
    userName: 'barbara.jensen@example.com',
    externalId: '701984',
    displayName: 'Barbara Jensen',
    active: true,
  });
  const { id } = made.body;
  t.is(made.headers['location'], `${scim.rig.url}/scim/v2/Users/${id}`);
  t.deepEqual((await scim.ask('GET', `Users/${id}`)).body, made.body);

  for (const filter of [
    'userName eq "BARBARA.jensen@example.com"',
    'externalId eq "701984"',
    `id eq "${id}" and username eq "barbara.jensen@example.com"`,
    'urn:ietf:params:scim:schemas:core:2.0:User:userName Eq "barbara.jensen@example.com"',
  ]) {
    const found = await scim.ask('GET', `Users?filter=${encodeURIComponent(filter)}`);
    t.is(found.body['totalResults'], 1, filter);
    t.like(found.body['Resources'], [{ id }]);
  }
  const none = await scim.ask('GET', `Users?filter=${encodeURIComponent('userName eq "nobody"')}`);
  t.deepEqual(none.body['Resources'], []);

  const again = await scim.ask('POST', 'Users', { userName: 'barbara.jensen@example.com' });
  t.is(again.status, 409);
  t.is(again.body['scimType'], 'uniqueness');

  const put = await scim.ask('PUT', `Users/${id}`, {
    schemas: [userSchema],
    userName: 'babs',
    displayName: 'Babs',
  });
  t.is(put.status, 200);
  t.like(put.body, { userName: 'babs', displayName: 'Babs', active: true });
  t.false('externalId' in put.body);

  t.is((await scim.ask('DELETE', `Users/${id}`)).status, 204);
  t.is((await scim.ask('GET', `Users/${id}`)).status, 404);
  t.is((await scim.ask('DELETE', `Users/${id}`)).status, 404);
  const actions = (await scim.records()).map(({ action }) => action);
  t.deepEqual(actions, ['user.add', 'user.set', 'user.remove']);
});

test.serial('scim - pages are of the size that is asked for', async (t) => {
  const { scim } = t.context;
  const ids = new Set<string>();
  for (const name of ['page-1', 'page-2', 'page-3']) ids.add(await scim.user(name));
  const first = await scim.ask('GET', 'Users?startIndex=1&count=2');
  const second = await scim.ask('GET', 'Users?startIndex=3&count=2');
  t.like(first.body, { totalResults: 3, itemsPerPage: 2, startIndex: 1 });
  t.like(second.body, { totalResults: 3, itemsPerPage: 1, startIndex: 3 });
  const seen = [first, second].flatMap(({ body }) => body['Resources'] as { id: string }[]);
  t.deepEqual(seen.map(({ id }) => id).sort(), [...ids].sort());
  t.like((await scim.ask('GET', 'Users?count=0')).body, { totalResults: 3, itemsPerPage: 0 });
  const names = await scim.ask('GET', 'Users?attributes=userName&count=1');
  const [only] = names.body['Resources'] as Record<string, unknown>[];
  t.deepEqual(Object.keys(only ?? {}).sort(), ['id', 'meta', 'schemas', 'userName']);
  for (const id of ids) await scim.ask('DELETE', `Users/${id}`);
});

for (const [what, operation] of [
  ['as Okta writes it', { op: 'replace', value: { active: false } }],
  ['as Microsoft Entra writes it', { op: 'Replace', path: 'active', value: 'False' }],
  ['by the whole name of the attribute', { op: 'add', path: `${userSchema}:active`, value: false }],
] as const) {
  test.serial(`scim - active=false, ${what}, ends session and tunnel at once`, async (t) => {
    const { scim } = t.context;
    const name = `leaver-${String(what.length)}`;
    const id = await scim.user(name);
    const group = await scim.group('Staff', [id]);
    const { device, grant } = await scim.tunnel(name);
    const answer = await scim.patch(`Users/${id}`, operation);
    t.is(answer.status, 200);
    t.is(answer.body['active'], false);
    t.is(await scim.ended(device, grant), 'user_disabled');
    t.like(await scim.show(name), { state: 'disabled' });
    await t.throwsAsync(device.channel.request({ type: 'grant', app: 'wiki' }));

    const back = await scim.patch(`Users/${id}`, { op: 'replace', value: { active: 'True' } });
    t.is(back.body['active'], true);
    t.like(await scim.show(name), { state: 'active' });
    await scim.ask('DELETE', `Groups/${group}`);
    await scim.ask('DELETE', `Users/${id}`);
  });
}

test.serial('scim - a user that is deleted loses session, device and tunnel at once', async (t) => {
  const { scim } = t.context;
  const id = await scim.user('deleted');
  const group = await scim.group('Staff', [id]);
  const { device, grant } = await scim.tunnel('deleted');
  t.is((await scim.ask('DELETE', `Users/${id}`)).status, 204);
  t.is(await scim.ended(device, grant), 'user_removed');
  t.deepEqual((await scim.ask('GET', `Groups/${group}`)).body['members'], []);
  await scim.ask('DELETE', `Groups/${group}`);
});

test.serial(
  'scim - what an administrator disabled stays so, and the other way round',
  async (t) => {
    const { scim } = t.context;
    const id = await scim.user('held');
    await scim.rig.admin('user.disable', { name: 'held' });
    t.is((await scim.patch(`Users/${id}`, { op: 'replace', value: { active: true } })).status, 200);
    t.like(await scim.show('held'), { state: 'disabled' });
    await scim.patch(`Users/${id}`, { op: 'replace', value: { active: false } });
    const refused = await t.throwsAsync(scim.rig.admin('user.enable', { name: 'held' }));
    t.regex(refused.message, /directory that provisions held/);
    await scim.patch(`Users/${id}`, { op: 'replace', value: { active: true } });
    t.like(await scim.show('held'), { state: 'disabled' });
    await scim.rig.admin('user.enable', { name: 'held' });
    t.like(await scim.show('held'), { state: 'active' });
    // Nobody is let in by leaving something out.
    await scim.patch(`Users/${id}`, { op: 'replace', value: { active: false } });
    const put = await scim.ask('PUT', `Users/${id}`, { userName: 'held' });
    t.is(put.body['active'], false);
    await scim.ask('DELETE', `Users/${id}`);
  },
);

test.serial('scim - who disables a user is noted beside whoever did so meanwhile', async (t) => {
  const { scim } = t.context;
  const { services } = scim.rig.plane;
  const id = await scim.user('twice');
  const before = await getUser(services.store.db, 'twice');
  await scim.rig.admin('user.disable', { name: 'twice' });
  await services.store.write((tx) => disableUser(services, tx, before, 'signals'));
  t.deepEqual((await scim.show('twice'))['disabledBy'], ['admin', 'signals']);
  const between = await getUser(services.store.db, 'twice');
  await scim.patch(`Users/${id}`, { op: 'replace', value: { active: false } });
  const left = await services.store.write((tx) => enableUser(services, tx, between, 'signals'));
  t.deepEqual(left, ['admin', 'scim']);
  t.deepEqual((await scim.show('twice'))['disabledBy'], ['admin', 'scim']);
  await scim.ask('DELETE', `Users/${id}`);
});

test.serial('scim - users of others are neither shown nor touched nor taken over', async (t) => {
  const { scim } = t.context;
  const { id } = await scim.rig.admin<{ id: string }>('user.add', { name: 'break-glass' });
  t.is((await scim.ask('GET', `Users/${id}`)).status, 404);
  t.is((await scim.ask('GET', 'Users')).body['totalResults'], 0);
  for (const [method, body] of [
    ['PUT', { userName: 'break-glass', active: false }],
    ['DELETE', undefined],
  ] as const) {
    t.is((await scim.ask(method, `Users/${id}`, body)).status, 404);
  }
  const patched = await scim.patch(`Users/${id}`, { op: 'replace', value: { active: false } });
  t.is(patched.status, 404);
  t.is((await scim.ask('POST', 'Users', { userName: 'break-glass' })).status, 409);
  const own = await scim.user('own');
  const renamed = await scim.patch(`Users/${own}`, {
    op: 'replace',
    path: 'userName',
    value: 'break-glass',
  });
  t.is(renamed.status, 409);
  const group = await scim.ask('POST', 'Groups', { displayName: 'x', members: [{ value: id }] });
  t.is(group.status, 400);
  t.like(await scim.show('break-glass'), { state: 'active' });
  await scim.ask('DELETE', `Users/${own}`);
});

test.serial(
  'scim - a directory sees those whom its provider signed in before, and no other directory’s',
  async (t) => {
    const { scim } = t.context;
    const settings = { issuer: 'https://idp.example.com', clientId: 'ztna', title: 'Corp' };
    const provider = {
      name: 'corp',
      settingsJson: JSON.stringify({ ...settings, scopes: ['openid'] }),
      sealedSecret: null,
      createdAtMs: 1,
    };
    const { store } = scim.rig.plane.services;
    await store.write((tx) => tx.insertInto('providers').values(provider).execute());
    await t.throwsAsync(scim.rig.admin('scim-token.add', { name: 'corp', provider: 'none' }));
    const { token } = await scim.rig.admin<{ token: string }>('scim-token.add', {
      name: 'corp',
      provider: 'corp',
    });
    const headers = { authorization: `Bearer ${token}` };
    const found = async (name: string, by?: Record<string, string>) => {
      const query = `Users?filter=${encodeURIComponent(`userName eq "${name}"`)}`;
      const { body } = await scim.ask('GET', query, undefined, by);
      return (body['Resources'] as { id: string }[]).map(({ id }) => id);
    };
    const { id: early } = await scim.rig.admin<{ id: string }>('user.add', {
      name: 'early',
      provider: 'corp',
    });
    t.deepEqual(await found('early', headers), [early]);
    t.deepEqual(await found('early'), []);
    const put = await scim.ask('PUT', `Users/${early}`, { userName: 'early' }, headers);
    t.is(put.status, 200);
    t.like(await scim.show('early'), { provisionedBy: 'scim corp' });

    const other = await scim.user('of-okta');
    t.deepEqual(await found('of-okta', headers), []);
    t.is((await scim.ask('DELETE', `Users/${other}`, undefined, headers)).status, 404);
    await scim.rig.admin('user.add', { name: 'local-one' });
    await scim.rig.admin('user.link', { name: 'local-one', scim: true });
    t.is((await found('local-one')).length, 1);
    for (const id of [other, ...(await found('local-one'))])
      await scim.ask('DELETE', `Users/${id}`);
    await scim.rig.admin('service.add', { name: 'robot', groups: [] });
    await t.throwsAsync(scim.rig.admin('user.link', { name: 'robot', scim: true }));
    t.deepEqual(await found('robot'), []);
  },
);

for (const [what, method, path, body, status, scimType] of [
  ['a body that is no JSON', 'POST', 'Users', '{', 400, 'invalidSyntax'],
  ['a user without name', 'POST', 'Users', { displayName: 'x' }, 400, 'invalidValue'],
  ['a name that policies cannot write', 'POST', 'Users', { userName: 'a b' }, 400, 'invalidValue'],
  ['a name with line ends', 'POST', 'Users', { userName: 'a\nb' }, 400, 'invalidValue'],
  ['active that is neither', 'POST', 'Users', { userName: 'n', active: 3 }, 400, 'invalidValue'],
  ['a list in place of a user', 'POST', 'Users', [], 400, 'invalidSyntax'],
  [
    'a filter by what is not kept',
    'GET',
    'Users?filter=title%20eq%20%22x%22',
    undefined,
    400,
    'invalidFilter',
  ],
  ['a filter that is none', 'GET', 'Users?filter=userName%20co', undefined, 400, 'invalidFilter'],
  ['a count that is none', 'GET', 'Users?count=many', undefined, 400, 'invalidValue'],
  ['a body above 1 MiB', 'POST', 'Users', `"${'x'.repeat(1_048_577)}"`, 413, undefined],
  ['a method that there is not', 'PUT', 'Users', {}, 405, undefined],
] as const) {
  test.serial(`scim - refuses ${what}`, async (t) => {
    const { scim } = t.context;
    const answer = await scim.ask(method, path, body);
    t.is(answer.status, status);
    t.is(answer.body['scimType'], scimType);
    t.is(answer.body['status'], String(status));
    t.is(answer.headers['content-type'], 'application/scim+json');
  });
}
