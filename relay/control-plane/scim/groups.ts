import { newGroup } from '../api/lookup.ts';
import {
  applyMembers,
  idsOf,
  maxMembers,
  namedMembers,
  readMembers,
  recordGroup,
  review,
  setMembers,
} from './members.ts';
import { parsePatch } from './patch.ts';
import { refuseScim } from './refuse.ts';
import {
  groupSchema,
  listOf,
  locationOf,
  metaOf,
  type ListQuery,
  type Resource,
  type ScimCaller,
} from './resource.ts';
import { groupNameOf, membersOf, textOf } from './value.ts';
import type { UserId } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { Group, Reader, Tx } from '../store/index.ts';

function groupsOf(db: Reader | Tx, { scope }: ScimCaller) {
  return db.selectFrom('groups').where('provisionedBy', '=', scope);
}

async function getGroup(db: Reader | Tx, caller: ScimCaller, id: string): Promise<Group> {
  const row = await groupsOf(db, caller)
    .selectAll()
    .where('id', '=', id as Group['id'])
    .executeTakeFirst();
  if (row) return row;
  throw refuseScim('scim_not_found', `there is no group ${id.slice(0, 64)}`);
}

async function describe(
  services: Services,
  db: Reader | Tx,
  caller: ScimCaller,
  group: Group,
  hasMembers = true,
): Promise<Resource> {
  const { url } = services.settings;
  const members = hasMembers ? await readMembers(db, caller, group) : [];
  const users = locationOf(url, 'User', '');
  return {
    schemas: [groupSchema],
    id: group.id,
    ...(group.externalId === null ? {} : { externalId: group.externalId }),
    displayName: group.displayName ?? group.name,
    members: members.map(({ id, name }) => ({
      value: id,
      display: name,
      type: 'User',
      $ref: users + id,
    })),
    meta: metaOf(url, 'Group', group.id, group.createdAtMs),
  };
}

export async function showGroup(services: Services, caller: ScimCaller, id: string) {
  const { db } = services.store;
  return describe(services, db, caller, await getGroup(db, caller, id));
}

export async function listGroups(services: Services, caller: ScimCaller, query: ListQuery) {
  const { db } = services.store;
  let groups = groupsOf(db, caller);
  for (const { attribute, value } of query.filter) {
    const text = typeof value === 'string' ? value : '';
    if (attribute === 'displayname') {
      groups = groups.where((eb) =>
        eb.or([eb('displayName', '=', text), eb('name', '=', text.toLowerCase())]),
      );
    } else if (attribute === 'externalid') groups = groups.where('externalId', '=', text);
    else if (attribute === 'id') groups = groups.where('id', '=', text as Group['id']);
    else if (attribute === 'members.value' || attribute === 'members') {
      const of = db.selectFrom('providedMemberships').select('groupId');
      groups = groups.where(
        'id',
        'in',
        of.where('source', '=', caller.scope).where('userId', '=', text as UserId),
      );
    } else {
      throw refuseScim(
        'scim_invalid_filter',
        'groups are found by displayName, externalId, id and members.value',
      );
    }
  }
  const { total } = await groups
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow();
  const rows =
    query.limit === 0
      ? []
      : await groups.selectAll().orderBy('id').limit(query.limit).offset(query.offset).execute();
  const resources: Resource[] = [];
  let members = 0;
  for (const row of rows) {
    const group = await describe(services, db, caller, row, query.hasMembers);
    members += (group['members'] as readonly unknown[]).length;
    // A page may be shorter than it was asked to be; the next one begins behind it.
    if (members > maxMembers && resources.length > 0) break;
    resources.push(group);
  }
  return listOf(resources, total, query.offset);
}

export async function createGroup(services: Services, caller: ScimCaller, body: unknown) {
  const { displayName, externalId, members } = readWhole(body);
  const name = groupNameOf(displayName);
  return services.store.write(async (tx) => {
    const known = await tx
      .selectFrom('groups')
      .selectAll()
      .where('name', '=', name)
      .executeTakeFirst();
    if (known && known.provisionedBy !== null) throw taken(name);
    const more = { externalId, displayName, provisionedBy: caller.scope };
    const group = known ?? newGroup(name, services.clock.nowMs(), more);
    // An administrator's group of that name gets the directory's members beside its own.
    if (known) await tx.updateTable('groups').set(more).where('id', '=', known.id).execute();
    else await tx.insertInto('groups').values(group).execute();
    await recordGroup(services, tx, caller, 'group.add', group.name, {
      externalId,
      joined: !!known,
    });
    await setMembers(services, tx, caller, group, members);
    return describe(services, tx, caller, await getGroup(tx, caller, group.id));
  });
}

export async function replaceGroup(
  services: Services,
  caller: ScimCaller,
  id: string,
  body: unknown,
) {
  const { displayName, externalId, members } = readWhole(body);
  return services.store.write(async (tx) => {
    const group = await getGroup(tx, caller, id);
    await setColumns(services, tx, caller, group, { displayName, externalId });
    await setMembers(services, tx, caller, group, members);
    return describe(services, tx, caller, await getGroup(tx, caller, id));
  });
}

export async function patchGroup(
  services: Services,
  caller: ScimCaller,
  id: string,
  body: unknown,
): Promise<void> {
  const changes = parsePatch(body);
  await services.store.write(async (tx) => {
    const group = await getGroup(tx, caller, id);
    let columns: { displayName?: string; externalId?: string | null } = {};
    let members: Set<string> | undefined;
    const among = namedMembers(changes);
    for (const change of changes) {
      const { attribute, op, value } = change;
      if (attribute === 'displayname') {
        if (op === 'remove') throw refuseScim('scim_mutability', 'displayName cannot be removed');
        columns = { ...columns, displayName: needName(value) };
      } else if (attribute === 'externalid') {
        columns = {
          ...columns,
          externalId: op === 'remove' ? null : textOf('externalId', value),
        };
      } else if (attribute === 'members') {
        members ??= new Set((await readMembers(tx, caller, group, among)).map((user) => user.id));
        applyMembers(members, change);
      }
    }
    await setColumns(services, tx, caller, group, columns);
    if (members) await setMembers(services, tx, caller, group, members, among);
  });
}

/** Removes what the directory gave; an administrator's own members stay, and the group with them. */
export async function deleteGroup(services: Services, caller: ScimCaller, id: string) {
  await services.store.write(async (tx) => {
    const group = await getGroup(tx, caller, id);
    const { removed } = await setMembers(services, tx, caller, group, new Set());
    const left = await Promise.all([
      tx
        .selectFrom('memberships')
        .select('userId')
        .where('groupId', '=', group.id)
        .executeTakeFirst(),
      tx
        .selectFrom('providedMemberships')
        .select('userId')
        .where('groupId', '=', group.id)
        .executeTakeFirst(),
    ]);
    const isKept = left.some((row) => row !== undefined);
    if (isKept) {
      const none = { provisionedBy: null, externalId: null, displayName: null };
      await tx.updateTable('groups').set(none).where('id', '=', group.id).execute();
    } else {
      await tx.deleteFrom('groups').where('id', '=', group.id).execute();
    }
    await recordGroup(services, tx, caller, 'group.remove', group.name, { removed, isKept });
  });
}

function readWhole(body: unknown) {
  const all = membersOf(body, 'a group');
  return {
    displayName: needName(all['displayname']),
    externalId: textOf('externalId', all['externalid']),
    members: new Set(idsOf(all['members'] ?? [])),
  };
}

function needName(value: unknown): string {
  const name = textOf('displayName', value);
  if (name !== null) return name;
  throw refuseScim('scim_invalid_value', 'a group has a displayName');
}

async function setColumns(
  services: Services,
  tx: Tx,
  caller: ScimCaller,
  group: Group,
  wanted: { readonly displayName?: string; readonly externalId?: string | null },
): Promise<void> {
  const { displayName = group.displayName ?? group.name, externalId = group.externalId } = wanted;
  // Only another name in the directory is another name here: a group that was joined keeps its own.
  const isRenamed = displayName !== (group.displayName ?? group.name);
  const name = isRenamed ? groupNameOf(displayName) : group.name;
  if (!isRenamed && externalId === group.externalId) return;
  if (name !== group.name) {
    const other = await tx
      .selectFrom('groups')
      .select('id')
      .where('name', '=', name)
      .executeTakeFirst();
    if (other) throw taken(name);
  }
  await tx
    .updateTable('groups')
    .set({ displayName, externalId, name })
    .where('id', '=', group.id)
    .execute();
  if (name !== group.name) await refuseOthers(tx, caller, group); // renamed already: nobody joins meanwhile
  const from = name === group.name ? {} : { from: group.name };
  await recordGroup(services, tx, caller, 'group.set', name, { displayName, externalId, ...from });
  if (name === group.name) return;
  // Policies name groups.
  const everyone = await Promise.all(
    (['memberships', 'providedMemberships'] as const).map((table) =>
      tx.selectFrom(table).select('userId').where('groupId', '=', group.id).execute(),
    ),
  );
  await review(
    services,
    tx,
    everyone.flat().map(({ userId }) => userId),
  );
}

/** Policies name groups: another name would take places along that are not the caller's to give. */
async function refuseOthers(tx: Tx, { scope }: ScimCaller, { id }: Group): Promise<void> {
  const [own, provided] = await Promise.all([
    tx.selectFrom('memberships').select('userId').where('groupId', '=', id).executeTakeFirst(),
    tx
      .selectFrom('providedMemberships')
      .select('userId')
      .where('groupId', '=', id)
      .where('source', '!=', scope)
      .executeTakeFirst(),
  ]);
  if (!own && !provided) return;
  throw refuseScim('scim_mutability', 'others have members in this group: its name stays');
}

function taken(name: string): Error {
  return refuseScim('scim_uniqueness', `there is a group ${name} already`);
}
