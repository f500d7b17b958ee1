import { setImmediate } from 'node:timers/promises';
import { knowTunnels } from '../live/replica.ts';
import { reevaluate } from '../verification/reevaluate.ts';
import type { Change } from './patch.ts';
import { refuseScim } from './refuse.ts';
import type { ScimCaller } from './resource.ts';
import { knownUsers } from './users.ts';
import { membersOf } from './value.ts';
import type { UserId } from '../../../protocol/index.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import type { Group, Reader, Tx, User } from '../store/index.ts';

/** Members that one group may have, one operation on it name, or one page tell of. */
export const maxMembers = 20_000;

/** Members whose names one audit record tells. */
const maxNamed = 50;

/** Rows that one statement writes, and ids that it asks for. */
const rowsAtOnce = 200;
const idsAtOnce = 500;

/** Whom the caller put into a group, among some or all; places that others gave are none of its business. */
export async function readMembers(
  db: Reader | Tx,
  { scope }: ScimCaller,
  group: Group,
  among?: ReadonlySet<string>,
): Promise<Pick<User, 'id' | 'name'>[]> {
  const members = db
    .selectFrom('providedMemberships')
    .innerJoin('users', 'users.id', 'providedMemberships.userId')
    .select(['users.id', 'users.name'])
    .where('groupId', '=', group.id)
    .where('source', '=', scope)
    .orderBy('users.id');
  if (among === undefined) return members.execute();
  const found: Pick<User, 'id' | 'name'>[] = [];
  for (const ids of inParts([...among] as UserId[], idsAtOnce)) {
    found.push(...(await members.where('users.id', 'in', ids).execute()));
    await setImmediate();
  }
  return found;
}

async function countMembers(db: Tx, { scope }: ScimCaller, group: Group): Promise<number> {
  const { count } = await db
    .selectFrom('providedMemberships')
    .select((eb) => eb.fn.countAll<number>().as('count'))
    .where('groupId', '=', group.id)
    .where('source', '=', scope)
    .executeTakeFirstOrThrow();
  return count;
}

function inParts<T>(all: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(all.length / size) }, (_, i) =>
    all.slice(i * size, (i + 1) * size),
  );
}

/** Ids of members, of which a directory tells one or a list. */
export function idsOf(value: unknown): string[] {
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

/** A removal without values takes all of them. */
function isOfAll({ op, filter, value }: Change): boolean {
  if (filter.length > 0) return false;
  return op === 'replace' || (op === 'remove' && (value === undefined || value === null));
}

/** The members that changes are about; undefined where they are about all of them. */
export function namedMembers(changes: readonly Change[]): ReadonlySet<string> | undefined {
  const named = new Set<string>();
  for (const change of changes) {
    if (change.attribute !== 'members') continue;
    if (isOfAll(change)) return undefined;
    for (const { value } of change.filter) if (typeof value === 'string') named.add(value);
    if (change.filter.length === 0) for (const id of idsOf(change.value)) named.add(id);
  }
  return named;
}

export function applyMembers(members: Set<string>, change: Change): void {
  const { op, filter, value } = change;
  if (filter.length > 0) {
    const [only, other] = filter;
    if (op !== 'remove' || only?.attribute !== 'value' || other || typeof only.value !== 'string') {
      throw refuseScim('scim_invalid_path', 'members are filtered by value, to be removed');
    }
    members.delete(only.value);
    return;
  }
  if (isOfAll(change)) members.clear();
  if (value === undefined || value === null) return;
  for (const id of idsOf(value)) {
    if (op === 'remove') members.delete(id);
    else members.add(id);
  }
}

/** Makes these the caller's members of the group, as far as it is about those `among`. Throws `scim_invalid_value` for one that is no user of the caller's. */
export async function setMembers(
  services: Services,
  tx: Tx,
  caller: ScimCaller,
  group: Group,
  wanted: ReadonlySet<string>,
  among?: ReadonlySet<string>,
): Promise<{ readonly removed: number }> {
  const before = await readMembers(tx, caller, group, among);
  const others = among === undefined ? 0 : (await countMembers(tx, caller, group)) - before.length;
  if (others + wanted.size > maxMembers) {
    throw refuseScim('scim_too_many', `a group has at most ${maxMembers} members`);
  }
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
  for (const part of inParts(added, rowsAtOnce)) {
    const rows = part.map(({ id }) => ({
      userId: id,
      groupId: group.id,
      source: caller.scope,
      createdAtMs: nowMs,
    }));
    await tx.insertInto('providedMemberships').values(rows).execute();
    await setImmediate(); // a store in this process answers without: nobody else would get a turn until the end
  }
  for (const part of inParts(removed, rowsAtOnce)) {
    await tx
      .deleteFrom('providedMemberships')
      .where('groupId', '=', group.id)
      .where('source', '=', caller.scope)
      .where(
        'userId',
        'in',
        part.map(({ id }) => id),
      )
      .execute();
    await setImmediate();
  }
  if (added.length + removed.length > 0) {
    const names = (users: readonly { readonly name: string }[]) =>
      users.slice(0, maxNamed).map(({ name }) => name);
    await recordGroup(services, tx, caller, 'group.member.set', group.name, {
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

/** Decides the tunnels of these users anew. */
export async function review(services: Services, tx: Tx, users: readonly UserId[]): Promise<void> {
  const tunnels: LiveTunnel[] = [];
  for (const id of await withTunnels(tx, [...new Set(users)])) {
    tunnels.push(...(await knowTunnels(services, tx, 'user', id)));
  }
  if (tunnels.length > 0) await reevaluate(services, tx, tunnels, 'group_changed');
}

/** Those who have tunnels at all: a group may have thousands of members, most of whom are not here. */
async function withTunnels(tx: Tx, users: readonly UserId[]): Promise<UserId[]> {
  const found = new Set<UserId>();
  for (const ids of inParts(users, idsAtOnce)) {
    const rows = await tx
      .selectFrom('tunnels')
      .select('userId')
      .distinct()
      .where('userId', 'in', ids)
      .where('state', '!=', 'closed')
      .execute();
    for (const { userId } of rows) found.add(userId);
    await setImmediate();
  }
  return [...found];
}

/** Puts a change of a group on record. */
export async function recordGroup(
  services: Services,
  tx: Tx,
  { actor }: ScimCaller,
  action: string,
  subject: string,
  details: Record<string, unknown>,
): Promise<void> {
  await services.audit.append({ actor, action, subject, outcome: 'ok', details }, tx);
}
