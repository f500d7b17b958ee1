import anyTest, { type TestFn } from 'ava';
import { newId, type GroupId, type UserId } from '../../../../protocol/index.ts';
import { groupSchema, ScimRig } from './scim-rig.ts';

const test = anyTest as TestFn<{ scim: ScimRig }>;

test.before('a control plane and a directory', async (t) => {
  t.context.scim = await ScimRig.start();
});

test.after.always('stop', async (t) => {
  await (t.context.scim as ScimRig | undefined)?.stop();
});

const membersOf = (body: Record<string, unknown>) =>
  (body['members'] as { display: string }[]).map(({ display }) => display).sort();

test.serial('scim - adds, finds, renames and removes a group with members', async (t) => {
  const { scim } = t.context;
  const ann = await scim.user('ann');
  const made = await scim.ask('POST', 'Groups', {
    schemas: [groupSchema],
    displayName: 'Platform Engineering (EU)',
    externalId: 'g-1',
    members: [{ value: ann, display: 'Ann' }],
  });
  t.is(made.status, 201);
  t.like(made.body, { displayName: 'Platform Engineering (EU)', externalId: 'g-1' });
  t.deepEqual(membersOf(made.body), ['ann']);
  t.deepEqual((await scim.show('ann'))['groups'], ['platform-engineering-eu']);
  const { id } = made.body;
  for (const filter of ['displayName eq "Platform Engineering (EU)"', 'externalId eq "g-1"']) {
    const query = `filter=${encodeURIComponent(filter)}&excludedAttributes=members`;
    const found = await scim.ask('GET', `Groups?${query}`);
    t.is(found.body['totalResults'], 1);
    const [only] = found.body['Resources'] as Record<string, unknown>[];
    t.is(only?.['id'], id);
    t.false('members' in (only ?? {}));
  }
  const renamed = await scim.patch(`Groups/${id}`, {
    op: 'replace',
    value: { id, displayName: 'Platform' },
  });
  t.is(renamed.status, 204);
  t.deepEqual((await scim.show('ann'))['groups'], ['platform']);
  t.is((await scim.ask('DELETE', `Groups/${id}`)).status, 204);
  t.is((await scim.ask('GET', `Groups/${id}`)).status, 404);
  t.deepEqual((await scim.show('ann'))['groups'], []);
  await scim.ask('DELETE', `Users/${ann}`);
});

test.serial('scim - members change as Okta, Microsoft Entra and RFC 7644 write it', async (t) => {
  const { scim } = t.context;
  const [ann, ben, cy] = [await scim.user('ann'), await scim.user('ben'), await scim.user('cy')];
  const id = await scim.group('crew');
  const path = `Groups/${id}`;
  const members = async () => membersOf((await scim.ask('GET', path)).body);

  await scim.patch(path, { op: 'Add', path: 'members', value: [{ value: ann }, { value: ben }] });
  t.deepEqual(await members(), ['ann', 'ben']);
  await scim.patch(path, { op: 'add', path: 'members', value: [{ value: ann }] });
  t.deepEqual(await members(), ['ann', 'ben'], 'once is enough');
  await scim.patch(path, { op: 'remove', path: `members[value eq "${ann}"]` });
  t.deepEqual(await members(), ['ben']);
  await scim.patch(path, { op: 'Remove', path: 'members', value: [{ value: ben }] });
  t.deepEqual(await members(), []);
  await scim.patch(
    path,
    { op: 'replace', path: 'members', value: [{ value: ann }, { value: cy }] },
    { op: 'remove', path: `members[value eq "${cy}"]` },
    { op: 'add', path: 'members', value: [{ value: ben }] },
  );
  t.deepEqual(await members(), ['ann', 'ben']);
  await scim.ask('PUT', path, { displayName: 'crew', members: [{ value: cy }] });
  t.deepEqual(await members(), ['cy']);
  await scim.patch(path, { op: 'remove', path: 'members' });
  t.deepEqual(await members(), []);

  const unknown = await scim.patch(path, { op: 'add', path: 'members', value: [{ value: 'x' }] });
  t.is(unknown.status, 400);
  t.is(unknown.body['scimType'], 'invalidValue');
  const nameless = await scim.patch(path, { op: 'remove' });
  t.is(nameless.body['scimType'], 'noTarget');
  t.is((await scim.ask('POST', 'Groups', { displayName: 'Crew' })).status, 409);
  for (const user of [ann, ben, cy]) await scim.ask('DELETE', `Users/${user}`);
  await scim.ask('DELETE', path);
});

test.serial('scim - who loses the group loses the tunnel at once', async (t) => {
  const { scim } = t.context;
  const dan = await scim.user('dan');
  const staff = await scim.group('staff', [dan]);
  const { device, grant } = await scim.tunnel('dan');
  const operation = { op: 'remove', path: `members[value eq "${dan}"]` };
  t.is((await scim.patch(`Groups/${staff}`, operation)).status, 204);
  t.is(await scim.ended(device, grant), 'group_changed');
  await scim.ask('DELETE', `Groups/${staff}`);
  await scim.ask('DELETE', `Users/${dan}`);
});

test.serial(
  'scim - a group that an administrator removes takes its tunnels along at once',
  async (t) => {
    const { scim } = t.context;
    const flo = await scim.user('flo');
    await scim.group('staff', [flo]);
    t.like(await scim.rig.admin('group.show', { name: 'staff' }), {
      members: ['flo (by scim)'],
      provisionedBy: 'scim',
    });
    const { device, grant } = await scim.tunnel('flo');
    t.like(await scim.rig.admin('group.remove', { name: 'staff' }), { tunnelsEnded: 1 });
    t.is(await scim.ended(device, grant), 'group_removed');
    await scim.ask('DELETE', `Users/${flo}`);
  },
);

test.serial(
  'scim - places that an administrator gave are not the directory’s to take',
  async (t) => {
    const { scim } = t.context;
    const eve = await scim.user('eve');
    await scim.rig.admin('group.add', { name: 'dba' });
    await scim.rig.admin('user.add', { name: 'root' });
    await scim.rig.admin('group.member.add', { group: 'dba', user: 'root' });
    t.is((await scim.ask('GET', 'Groups')).body['totalResults'], 0);
    const id = await scim.group('DBA', [eve]);
    t.deepEqual(membersOf((await scim.ask('GET', `Groups/${id}`)).body), ['eve']);
    await scim.patch(`Groups/${id}`, { op: 'replace', path: 'members', value: [] });
    t.deepEqual((await scim.show('root'))['groups'], ['dba']);
    await scim.ask('DELETE', `Groups/${id}`);
    t.deepEqual((await scim.show('root'))['groups'], ['dba']);
    t.deepEqual((await scim.show('eve'))['groups'], []);
  },
);

test.serial('scim - a group in which others have members keeps its name', async (t) => {
  const { scim } = t.context;
  const { rig } = scim;
  await rig.admin('user.add', { name: 'boss' });
  const ivy = await scim.user('ivy');
  const give = (user: string) => rig.admin('group.member.add', { group: 'ops', user });
  await rig.admin('group.add', { name: 'ops' });
  await give('boss');
  const id = await scim.group('Ops', [ivy]);
  const rename = () =>
    scim.patch(`Groups/${id}`, { op: 'replace', path: 'displayName', value: 'Staff' });
  const refused = await rename();
  t.is(refused.status, 400);
  t.is(refused.body['scimType'], 'mutability');
  const whole = await scim.ask('PUT', `Groups/${id}`, { displayName: 'Staff', members: [] });
  t.is(whole.body['scimType'], 'mutability');
  t.deepEqual((await scim.show('boss'))['groups'], ['ops']);
  t.deepEqual((await scim.show('ivy'))['groups'], ['ops'], 'nothing of it was done');

  await rig.admin('group.member.remove', { group: 'ops', user: 'boss' });
  const { store } = rig.plane.services;
  const place = { userId: ivy as UserId, groupId: id as GroupId, createdAtMs: 1 };
  const other = { ...place, source: 'scim other' };
  await store.write((tx) => tx.insertInto('providedMemberships').values(other).execute());
  t.is((await rename()).body['scimType'], 'mutability');
  await store.write((tx) =>
    tx.deleteFrom('providedMemberships').where('source', '=', 'scim other').execute(),
  );
  t.is((await rename()).status, 204);
  t.deepEqual((await scim.show('ivy'))['groups'], ['staff']);
  await scim.ask('DELETE', `Groups/${id}`);
  await scim.ask('DELETE', `Users/${ivy}`);
});

test.serial(
  'scim - a page of groups tells of 20,000 members at most, and of none where they are not wanted',
  async (t) => {
    const { scim } = t.context;
    const { store } = scim.rig.plane.services;
    const ids: string[] = [];
    await store.write(async (tx) => {
      for (let at = 0; at < 10_100; at += 100) {
        const users = Array.from({ length: 100 }, (_, i) => ({
          ...{ id: newId('user'), name: `m-${String(at + i)}`, role: null, disabled: 0 as const },
          ...{ passwordHash: null, expiresAtMs: null, createdAtMs: 1, provider: null },
          ...{ subject: null, externalId: null, displayName: null, provisionedBy: 'scim' },
        }));
        await tx.insertInto('users').values(users).execute();
        ids.push(...users.map(({ id }) => id));
      }
    });
    await scim.group('large-1', ids);
    await scim.group('large-2', ids);
    const first = await scim.ask('GET', 'Groups');
    t.like(first.body, { totalResults: 2, itemsPerPage: 1 });
    const second = await scim.ask('GET', 'Groups?startIndex=2');
    t.like(second.body, { totalResults: 2, itemsPerPage: 1, startIndex: 2 });
    const names = await scim.ask('GET', 'Groups?excludedAttributes=members');
    t.like(names.body, { totalResults: 2, itemsPerPage: 2 });
    const tooMany = Array.from({ length: 20_001 }, (_, i) => ({ value: `u-${String(i)}` }));
    const [large] = names.body['Resources'] as { id: string }[];
    const refused = await scim.patch(`Groups/${large?.id ?? ''}`, {
      op: 'add',
      path: 'members',
      value: tooMany,
    });
    t.is(refused.body['scimType'], 'tooMany');
  },
);
