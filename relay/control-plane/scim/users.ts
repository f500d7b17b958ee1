import { setImmediate } from 'node:timers/promises';
import { disableUser, disablersOf, enableUser, removeUser } from '../access/cut-off.ts';
import { addUser } from '../api/commands/user.ts';
import { readGroups } from '../grant/facts.ts';
import { knowTunnels } from '../live/replica.ts';
import { reevaluate } from '../verification/reevaluate.ts';
import { parsePatch } from './patch.ts';
import { refuseScim } from './refuse.ts';
import {
  listOf,
  metaOf,
  userSchema,
  type ListQuery,
  type Resource,
  type ScimCaller,
} from './resource.ts';
import { membersOf, textOf, truthOf, userNameOf } from './value.ts';
import type { Services } from '../services.ts';
import type { Reader, Tx, User } from '../store/index.ts';

/** What is kept of a user of SCIM; undefined is left as it is. */
interface UserChange {
  readonly name?: string;
  readonly externalId?: string | null;
  readonly displayName?: string | null;
  readonly isActive?: boolean;
}

/** Users that the caller provisions, and those of its provider that signed in before they were provisioned. */
function usersOf(db: Reader | Tx, { scope, provider }: ScimCaller) {
  return db
    .selectFrom('users')
    .where('kind', '=', 'person')
    .where((eb) =>
      eb.or([
        eb('provisionedBy', '=', scope),
        ...(provider === null
          ? []
          : [eb.and([eb('provisionedBy', 'is', null), eb('provider', '=', provider)])]),
      ]),
    );
}

/** A user of the caller's by id. Throws `scim_not_found`. */
async function getUser(db: Reader | Tx, caller: ScimCaller, id: string): Promise<User> {
  const row = await usersOf(db, caller)
    .selectAll()
    .where('id', '=', id as User['id'])
    .executeTakeFirst();
  if (row) return row;
  throw refuseScim('scim_not_found', `there is no user ${id.slice(0, 64)}`);
}

/** The ids of those that are users of the caller's. */
export async function knownUsers(
  db: Reader | Tx,
  caller: ScimCaller,
  ids: readonly string[],
): Promise<Pick<User, 'id' | 'name'>[]> {
  const found: Pick<User, 'id' | 'name'>[] = [];
  for (let at = 0; at < ids.length; at += 500) {
    const some = ids.slice(at, at + 500) as User['id'][];
    found.push(
      ...(await usersOf(db, caller).select(['id', 'name']).where('id', 'in', some).execute()),
    );
    await setImmediate(); // a store in this process answers without
  }
  return found;
}

async function describe(services: Services, db: Reader | Tx, user: User): Promise<Resource> {
  const { url } = services.settings;
  const groups = await readGroups(db, user.id, services.clock.nowMs());
  return {
    schemas: [userSchema],
    id: user.id,
    ...(user.externalId === null ? {} : { externalId: user.externalId }),
    userName: user.name,
    ...(user.displayName === null
      ? {}
      : { displayName: user.displayName, name: { formatted: user.displayName } }),
    active: isActive(user),
    groups: groups.map(({ name }) => ({ display: name })),
    meta: metaOf(url, 'User', user.id, user.createdAtMs),
  };
}

/** As the directory said last: what others want is none of its business. */
function isActive(user: User): boolean {
  return !disablersOf(user).includes('scim');
}

export async function showUser(services: Services, caller: ScimCaller, id: string) {
  const { db } = services.store;
  return describe(services, db, await getUser(db, caller, id));
}

export async function listUsers(services: Services, caller: ScimCaller, query: ListQuery) {
  const { db } = services.store;
  let users = usersOf(db, caller);
  for (const { attribute, value } of query.filter) {
    const text = typeof value === 'string' ? value : '';
    if (attribute === 'username') users = users.where('name', '=', text.toLowerCase());
    else if (attribute === 'externalid') users = users.where('externalId', '=', text);
    else if (attribute === 'displayname') users = users.where('displayName', '=', text);
    else if (attribute === 'id') users = users.where('id', '=', text as User['id']);
    else {
      throw refuseScim(
        'scim_invalid_filter',
        'users are found by userName, externalId, displayName and id',
      );
    }
  }
  const { total } = await users
    .select((eb) => eb.fn.countAll<number>().as('total'))
    .executeTakeFirstOrThrow();
  const rows =
    query.limit === 0
      ? []
      : await users.selectAll().orderBy('id').limit(query.limit).offset(query.offset).execute();
  const resources = await Promise.all(rows.map((row) => describe(services, db, row)));
  return listOf(resources, total, query.offset);
}

export async function createUser(services: Services, caller: ScimCaller, body: unknown) {
  const wanted = readWhole(body);
  return services.store.write(async (tx) => {
    const { name, externalId = null, displayName = null } = wanted;
    const user = await addUser(tx, name, services.clock.nowMs(), {
      externalId,
      displayName,
      provider: caller.provider,
      provisionedBy: caller.scope,
    });
    await record(services, tx, caller, 'user.add', user, { externalId });
    await change(services, tx, caller, user, { isActive: wanted.isActive ?? true });
    return describe(services, tx, await getUser(tx, caller, user.id));
  });
}

export async function replaceUser(
  services: Services,
  caller: ScimCaller,
  id: string,
  body: unknown,
) {
  const wanted = readWhole(body);
  return services.store.write(async (tx) => {
    const user = await getUser(tx, caller, id);
    // What is not said ends, but `active`: nobody is let in by leaving something out.
    await change(services, tx, caller, user, { externalId: null, displayName: null, ...wanted });
    return describe(services, tx, await getUser(tx, caller, id));
  });
}

export async function patchUser(services: Services, caller: ScimCaller, id: string, body: unknown) {
  const changes = parsePatch(body);
  let wanted: UserChange = {};
  for (const { op, attribute, value } of changes) {
    wanted = { ...wanted, ...readAttribute(attribute, op === 'remove' ? null : value, op) };
  }
  return services.store.write(async (tx) => {
    const user = await getUser(tx, caller, id);
    await change(services, tx, caller, user, wanted);
    return describe(services, tx, await getUser(tx, caller, id));
  });
}

export async function deleteUser(services: Services, caller: ScimCaller, id: string) {
  await services.store.write(async (tx) => {
    const user = await getUser(tx, caller, id);
    const tunnelsEnded = await removeUser(services, tx, user);
    await record(services, tx, caller, 'user.remove', user, { tunnelsEnded });
  });
}

/** What a whole representation says. Attributes that are not kept are nobody's mistake. */
function readWhole(body: unknown): UserChange & { readonly name: string } {
  const members = membersOf(body, 'a user');
  let wanted: UserChange = {};
  // The name of a person first: where both are given, `displayName` counts.
  for (const attribute of ['name', 'displayname', 'externalid', 'active']) {
    if (members[attribute] !== undefined) {
      wanted = { ...wanted, ...readAttribute(attribute, members[attribute], 'add') };
    }
  }
  return { ...wanted, name: userNameOf(members['username']) };
}

function readAttribute(attribute: string, value: unknown, op: string): UserChange {
  const isRemoved = op === 'remove';
  switch (attribute) {
    case 'username':
      if (isRemoved) throw refuseScim('scim_mutability', 'userName cannot be removed');
      return { name: userNameOf(value) };
    case 'active':
      if (isRemoved) throw refuseScim('scim_mutability', 'active cannot be removed');
      return { isActive: truthOf('active', value) };
    case 'externalid':
      return { externalId: textOf('externalId', value) };
    case 'displayname':
    case 'name.formatted':
      return { displayName: textOf(attribute, value) };
    case 'name': {
      const { formatted, givenname, familyname } = value === null ? {} : membersOf(value, 'name');
      const parts = [textOf('givenName', givenname), textOf('familyName', familyname)];
      const joined = parts.filter((part) => part !== null).join(' ');
      const displayName = textOf('formatted', formatted) ?? textOf('name', joined);
      return displayName === null && !isRemoved ? {} : { displayName };
    }
    case 'id':
    case 'groups':
    case 'meta':
      return {}; // ours to say; directories send back what they read
    default:
      return {}; // not kept
  }
}

async function change(
  services: Services,
  tx: Tx,
  caller: ScimCaller,
  user: User,
  wanted: UserChange,
): Promise<void> {
  const { isActive: isWantedActive, ...columns } = wanted;
  const isOther = (Object.entries(columns) as [keyof typeof columns, string | null][]).some(
    ([column, value]) => user[column] !== value,
  );
  if (isOther || user.provisionedBy !== caller.scope) {
    await refuseTakenName(tx, user, columns.name);
    await tx
      .updateTable('users')
      .set({ ...columns, provisionedBy: caller.scope })
      .where('id', '=', user.id)
      .execute();
    const renamed =
      columns.name === undefined || columns.name === user.name ? {} : { from: user.name };
    await record(services, tx, caller, 'user.set', user, { ...columns, ...renamed });
    const tunnels = await knowTunnels(services, tx, 'user', user.id);
    await reevaluate(services, tx, tunnels, 'user_changed');
  }
  if (isWantedActive === undefined || isWantedActive === isActive(user)) return;
  if (isWantedActive) {
    const left = await enableUser(services, tx, user, 'scim');
    await record(services, tx, caller, 'user.enable', user, { stillDisabledBy: left });
  } else {
    const tunnelsEnded = await disableUser(services, tx, user, 'scim');
    await record(services, tx, caller, 'user.disable', user, { tunnelsEnded });
  }
}

async function refuseTakenName(tx: Tx, user: User, name: string | undefined): Promise<void> {
  if (name === undefined || name === user.name) return;
  const other = await tx
    .selectFrom('users')
    .select('id')
    .where('name', '=', name)
    .executeTakeFirst();
  if (other) throw refuseScim('scim_uniqueness', `there is a user ${name} already`);
}

async function record(
  services: Services,
  tx: Tx,
  { actor }: ScimCaller,
  action: string,
  user: User,
  details: Record<string, unknown>,
): Promise<void> {
  await services.audit.append(
    { actor, action, subject: user.id, outcome: 'ok', user: user.name, details },
    tx,
  );
}
