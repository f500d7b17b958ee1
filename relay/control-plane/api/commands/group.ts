import * as v from 'valibot';
import { ZtnaError, type UserId } from '../../../../protocol/index.ts';
import { reevaluate } from '../../verification/reevaluate.ts';
import { defineCommand, type Command } from '../command.ts';
import { alreadyThere, checkName, getGroup, getUser, newGroup } from '../lookup.ts';
import { byName, instantMs, none, word } from './schema.ts';
import { knowTunnels } from '../../live/replica.ts';
import type { LiveTunnel } from '../../live/tunnel-index.ts';
import type { Services } from '../../services.ts';
import type { Group, Reader, Tx } from '../../store/index.ts';

/** Everybody in a group: by an administrator's word, or by that of `source`. */
async function readMembers(db: Reader | Tx, group: Group) {
  const given = await db
    .selectFrom('memberships')
    .innerJoin('users', 'users.id', 'memberships.userId')
    .select(['users.name', 'users.id', 'memberships.untilMs'])
    .where('memberships.groupId', '=', group.id)
    .execute();
  const provided = await db
    .selectFrom('providedMemberships')
    .innerJoin('users', 'users.id', 'providedMemberships.userId')
    .select(['users.name', 'users.id', 'providedMemberships.source'])
    .where('providedMemberships.groupId', '=', group.id)
    .execute();
  const all = [
    ...given.map((row) => ({ ...row, source: null })),
    ...provided.map((row) => ({ ...row, untilMs: null })),
  ];
  return all.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

/** `ann`, `ann (until …)`, `ann (by scim)`. */
function memberText({ name, untilMs, source }: Awaited<ReturnType<typeof readMembers>>[number]) {
  if (source !== null) return `${name} (by ${source})`;
  return untilMs === null ? name : `${name} (until ${new Date(untilMs).toISOString()})`;
}

async function tunnelsOf(
  services: Services,
  tx: Tx,
  users: readonly UserId[],
): Promise<LiveTunnel[]> {
  const all: LiveTunnel[] = [];
  for (const id of users) all.push(...(await knowTunnels(services, tx, 'user', id)));
  return all;
}

const member = v.strictObject({ group: word, user: word });

export const groupCommands: readonly Command[] = [
  defineCommand('group.add', 'change', byName, async ({ store, clock, audit }, { name }, actor) => {
    checkName('group', name);
    return store.write(async (tx) => {
      const row = newGroup(name, clock.nowMs());
      const added = await tx
        .insertInto('groups')
        .values(row)
        .onConflict((conflict) => conflict.column('name').doNothing())
        .returning('id')
        .executeTakeFirst();
      if (!added) throw alreadyThere('group', name);
      await audit.append({ actor, action: 'group.add', subject: name, outcome: 'ok' }, tx);
      return { id: row.id, name };
    });
  }),

  defineCommand('group.remove', 'change', byName, async (services, { name }, actor) =>
    services.store.write(async (tx) => {
      const group = await getGroup(tx, name);
      const members = await readMembers(tx, group);
      await tx.deleteFrom('groups').where('id', '=', group.id).execute();
      const tunnels = await tunnelsOf(services, tx, [...new Set(members.map(({ id }) => id))]);
      const { ended: tunnelsEnded, suspended: tunnelsSuspended } = await reevaluate(
        services,
        tx,
        tunnels,
        'group_removed',
      );
      await services.audit.append(
        {
          actor,
          action: 'group.remove',
          subject: name,
          outcome: 'ok',
          details: { tunnelsEnded, tunnelsSuspended },
        },
        tx,
      );
      return { name, tunnelsEnded, tunnelsSuspended };
    }),
  ),

  defineCommand('group.list', 'read', none, async ({ store }) => {
    const groups = await store.db.selectFrom('groups').selectAll().orderBy('name').execute();
    return Promise.all(
      groups.map(async (group) => ({
        id: group.id,
        name: group.name,
        provisionedBy: group.provisionedBy,
        members: new Set((await readMembers(store.db, group)).map((row) => row.id)).size,
      })),
    );
  }),

  defineCommand('group.show', 'read', byName, async ({ store }, { name }) => {
    const group = await getGroup(store.db, name);
    const members = await readMembers(store.db, group);
    return {
      id: group.id,
      name: group.name,
      provisionedBy: group.provisionedBy,
      members: members.map(memberText),
    };
  }),

  defineCommand(
    'group.member.add',
    'change',
    v.strictObject({ ...member.entries, untilMs: v.optional(instantMs) }),
    async (services, args, actor) =>
      services.store.write(async (tx) => {
        const nowMs = services.clock.nowMs();
        if (args.untilMs !== undefined && args.untilMs <= nowMs) {
          throw new ZtnaError('ERR_CONFIG_USAGE', { message: '--until lies in the past' });
        }
        const group = await getGroup(tx, args.group);
        const user = await getUser(tx, args.user);
        const untilMs = args.untilMs ?? null;
        await tx
          .insertInto('memberships')
          .values({ userId: user.id, groupId: group.id, untilMs, createdAtMs: nowMs })
          .onConflict((conflict) =>
            conflict.columns(['userId', 'groupId']).doUpdateSet({ untilMs }),
          )
          .execute();
        // A forbid may name the group, and a place that was open-ended may now end.
        await reevaluate(services, tx, await tunnelsOf(services, tx, [user.id]), 'group_changed');
        await services.audit.append(
          {
            actor,
            action: 'group.member.add',
            subject: group.name,
            outcome: 'ok',
            user: user.name,
            details: { untilMs },
          },
          tx,
        );
        return { group: group.name, user: user.name, untilMs };
      }),
  ),

  defineCommand('group.member.remove', 'change', member, async (services, args, actor) =>
    services.store.write(async (tx) => {
      const group = await getGroup(tx, args.group);
      const user = await getUser(tx, args.user);
      const removed = await tx
        .deleteFrom('memberships')
        .where('groupId', '=', group.id)
        .where('userId', '=', user.id)
        .returning('userId')
        .executeTakeFirst();
      if (!removed) {
        throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
          message: `${user.name} is not in ${group.name}`,
        });
      }
      const tunnels = await tunnelsOf(services, tx, [user.id]);
      const { ended: tunnelsEnded, suspended: tunnelsSuspended } = await reevaluate(
        services,
        tx,
        tunnels,
        'group_member_removed',
      );
      await services.audit.append(
        {
          actor,
          action: 'group.member.remove',
          subject: group.name,
          outcome: 'ok',
          user: user.name,
          details: { tunnelsEnded, tunnelsSuspended },
        },
        tx,
      );
      return { group: group.name, user: user.name, tunnelsEnded, tunnelsSuspended };
    }),
  ),
];
