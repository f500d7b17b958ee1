import { newGroup } from '../api/lookup.ts';
import { knowTunnels } from '../live/replica.ts';
import { reevaluate } from '../verification/reevaluate.ts';
import { parsePatch, type Change } from './patch.ts';
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
import { knownUsers } from './users.ts';
import { groupNameOf, membersOf, textOf } from './value.ts';
import type { UserId } from '../../../protocol/index.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Group, Reader, Tx } from '../store/index.ts';

/** Members that one group may have, one operation on it name, or one page tell of. */
export const maxMembers = 20_000;

/** Members whose names one audit record tells. */
const maxNamed = 50;

/** Rows that one statement writes, and ids that it asks for. */
const rowsAtOnce = 200;
const idsAtOnce = 500;

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

/** Whom the caller put into a group; places that others gave are none of its business. */
async function readMembers(db: Reader | Tx, { scope }: ScimCaller, group: Group) {
  return db
    .selectFrom('providedMemberships')
    .innerJoin('users', 'users.id', 'providedMemberships.userId')
    .select(['users.id', 'users.name'])
    .where('groupId', '=', group.id)
    .where('source', '=', scope)
    .orderBy('users.id')
    .execute();
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
  return {
    schemas: [groupSchema],
    id: group.id,
    ...(group.externalId === null ? {} : { externalId: group.externalId }),
    displayName: group.displayName ?? group.name,
    members: members.map(({ id, name }) => ({
      value: id,
      display: name,
      type: 'User',
      $ref: locationOf(url, 'User', id),
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
    await record(services, tx, caller, 'group.add', group.name, { externalId, joined: !!known });
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
        members ??= new Set((await readMembers(tx, caller, group)).map((user) => user.id));
        applyMembers(members, change);
      }
    }
    await setColumns(services, tx, caller, group, columns);
    if (members) await setMembers(services, tx, caller, group, members);
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
    await record(services, tx, caller, 'group.remove', group.name, { removed, isKept });
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

/** Ids of members, of which a directory tells one or a list. */
function idsOf(value: unknown): string[] {
  const all = Array.isArray(value) ? (value as unknown[]) : [value];
  if (all.length > maxMembers) {
    throw refuseScim('scim_too_many', `a group has at most ${maxMembers} members`);
  }
  return all.map((one) => {
    const id = typeof one === 'string' ? one : membersOf(one, 'a member')['value'];
    if (typeof id === 'string' && id.length <= 64) return id;
    throw refuseScim('scim_invalid_value', 'a member is named by the id of a user');
  });
}

function applyMembers(members: Set<string>, { op, filter, value }: Change): void {
  if (filter.length > 0) {
    const [only, other] = filter;
    if (op !== 'remove' || only?.attribute !== 'value' || other || typeof only.value !== 'string') {
      throw refuseScim('scim_invalid_path', 'members are filtered by value, to be removed');
    }
    members.delete(only.value);
    return;
  }
  // A removal without values takes all of them.
  if (op === 'replace' || (op === 'remove' && (value === undefined || value === null))) {
    members.clear();
  }
  if (value === undefined || value === null) return;
  for (const id of idsOf(value)) {
    if (op === 'remove') members.delete(id);
    else members.add(id);
  }
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
  const from = name === group.name ? {} : { from: group.name };
  await record(services, tx, caller, 'group.set', name, { displayName, externalId, ...from });
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

/** Makes these the caller's members of the group. Throws `scim_invalid_value` for one that is no user of the caller's. */
async function setMembers(
  services: Services,
  tx: Tx,
  caller: ScimCaller,
  group: Group,
  wanted: ReadonlySet<string>,
): Promise<{ readonly removed: number }> {
  if (wanted.size > maxMembers) {
    throw refuseScim('scim_too_many', `a group has at most ${maxMembers} members`);
  }
  const before = await readMembers(tx, caller, group);
  const had = new Set<string>(before.map(({ id }) => id));
  const added = await knownUsers(
    tx,
    caller,
    [...wanted].filter((id) => !had.has(id)),
  );
  const known = new Set<string>([...had, ...added.map(({ id }) => id)]);
  const unknown = [...wanted].find((id) => !known.has(id));
  if (unknown !== undefined) {
    throw refuseScim('scim_invalid_value', `there is no user ${unknown}`);
  }
  const removed = before.filter(({ id }) => !wanted.has(id));
  const nowMs = services.clock.nowMs();
  for (let at = 0; at < added.length; at += rowsAtOnce) {
    const rows = added.slice(at, at + rowsAtOnce).map(({ id }) => ({
      userId: id,
      groupId: group.id,
      source: caller.scope,
      createdAtMs: nowMs,
    }));
    await tx.insertInto('providedMemberships').values(rows).execute();
  }
  for (let at = 0; at < removed.length; at += rowsAtOnce) {
    const ids = removed.slice(at, at + rowsAtOnce).map(({ id }) => id);
    await tx
      .deleteFrom('providedMemberships')
      .where('groupId', '=', group.id)
      .where('source', '=', caller.scope)
      .where('userId', 'in', ids)
      .execute();
  }
  if (added.length + removed.length > 0) {
    const names = (users: readonly { readonly name: string }[]) =>
      users.slice(0, maxNamed).map(({ name }) => name);
    await record(services, tx, caller, 'group.member.set', group.name, {
      added: names(added),
      addedCount: added.length,
      removed: names(removed),
      removedCount: removed.length,
    });
    // A forbid may name the group, so whoever came is looked at too.
    await review(
      services,
      tx,
      [...removed, ...added].map(({ id }) => id),
    );
  }
  return { removed: removed.length };
}

async function review(services: Services, tx: Tx, users: readonly UserId[]): Promise<void> {
  const tunnels: LiveTunnel[] = [];
  for (const id of await withTunnels(tx, [...new Set(users)])) {
    tunnels.push(...(await knowTunnels(services, tx, 'user', id)));
  }
  if (tunnels.length > 0) await reevaluate(services, tx, tunnels, 'group_changed');
}

/** Those who have tunnels at all: a group may have thousands of members, most of whom are not here. */
async function withTunnels(tx: Tx, users: readonly UserId[]): Promise<UserId[]> {
  const found = new Set<UserId>();
  for (let at = 0; at < users.length; at += idsAtOnce) {
    const rows = await tx
      .selectFrom('tunnels')
      .select('userId')
      .distinct()
      .where('userId', 'in', users.slice(at, at + idsAtOnce))
      .where('state', '!=', 'closed')
      .execute();
    for (const { userId } of rows) found.add(userId);
  }
  return [...found];
}

function taken(name: string): Error {
  return refuseScim('scim_uniqueness', `there is a group ${name} already`);
}

async function record(
  services: Services,
  tx: Tx,
  { actor }: ScimCaller,
  action: string,
  subject: string,
  details: Record<string, unknown>,
): Promise<void> {
  await services.audit.append({ actor, action, subject, outcome: 'ok', details }, tx);
}
