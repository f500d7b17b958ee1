import type { UserId } from '../../../../protocol/index.ts';
import { addUser } from '../../api/commands/user.ts';
import { ensureGroup } from '../../api/lookup.ts';
import { knowTunnels } from '../../live/replica.ts';
import type { Services } from '../../services.ts';
import type { Tx, User } from '../../store/index.ts';
import { reevaluate } from '../../verification/reevaluate.ts';
import { checkDomain, nameOf, type Claims } from './claims.ts';
import { refusal } from './failure.ts';
import type { StoredProvider } from './settings.ts';

/**
 * The user that a provider means. Who it is goes by the provider's own word for the person alone; the first time, a user that was
 * made for this provider is found by name, or one is made. Nobody else's user is ever taken over. Throws
 * ERR_IDENTITY_SIGN_IN_REFUSED: `identity_name_taken`, `user_unknown`, `user_not_active`, and what `nameOf` and
 * `checkDomain` throw.
 */
export async function resolveUser(
  services: Services,
  tx: Tx,
  provider: StoredProvider,
  claims: Claims & { readonly sub: string },
): Promise<User> {
  const { settings, name: source } = provider;
  const { clock, audit } = services;
  checkDomain(claims, settings);
  const { sub: subject } = claims;
  const displayName = displayNameOf(claims);
  const known = await tx
    .selectFrom('users')
    .selectAll()
    .where('provider', '=', source)
    .where('subject', '=', subject)
    .executeTakeFirst();
  if (known) {
    if (displayName !== null && displayName !== known.displayName) {
      await tx.updateTable('users').set({ displayName }).where('id', '=', known.id).execute();
    }
    return active(services, known);
  }
  const name = nameOf(claims, settings);
  const named = await tx
    .selectFrom('users')
    .selectAll()
    .where('name', '=', name)
    .executeTakeFirst();
  const record = (user: User, action: string) =>
    audit.append(
      {
        ...{ actor: `provider:${source}`, action, subject: user.id, outcome: 'ok' },
        user: name,
        details: { provider: source, subject },
      },
      tx,
    );
  if (named) {
    if (named.provider !== source || named.subject !== null || named.kind !== 'person') {
      throw refusal('identity_name_taken');
    }
    active(services, named);
    await tx.updateTable('users').set({ subject }).where('id', '=', named.id).execute();
    await record(named, 'user.link');
    return { ...named, subject };
  }
  if (!settings.createUsers) throw refusal('user_unknown');
  const user = await addUser(tx, name, clock.nowMs(), { provider: source, subject, displayName });
  await record(user, 'user.add');
  return user;
}

function active({ clock }: Services, user: User): User {
  const hasExpired = user.expiresAtMs !== null && user.expiresAtMs <= clock.nowMs();
  if (user.disabled === 1 || hasExpired) throw refusal('user_not_active');
  return user;
}

function displayNameOf({ name }: Claims): string | null {
  return typeof name === 'string' && name !== '' ? name.slice(0, 128) : null;
}

/** What places in groups are marked with that a provider keeps. */
export function sourceOf(provider: string): string {
  return `provider ${provider}`;
}

/**
 * Has the user in exactly these groups as far as `source` says, and decides the user's tunnels anew where that is another set than
 * before.
 */
export async function setProvidedGroups(
  services: Services,
  tx: Tx,
  user: UserId,
  source: string,
  groups: readonly string[],
): Promise<boolean> {
  const nowMs = services.clock.nowMs();
  const rows = await tx
    .selectFrom('providedMemberships')
    .innerJoin('groups', 'groups.id', 'providedMemberships.groupId')
    .select(['groups.id', 'groups.name'])
    .where('providedMemberships.userId', '=', user)
    .where('providedMemberships.source', '=', source)
    .execute();
  const added = groups.filter((name) => !rows.some((row) => row.name === name));
  const left = rows.filter(({ name }) => !groups.includes(name));
  if (added.length === 0 && left.length === 0) return false;
  for (const name of added) {
    const { id: groupId } = await ensureGroup(tx, name, nowMs);
    await tx
      .insertInto('providedMemberships')
      .values({ userId: user, groupId, source, createdAtMs: nowMs })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }
  for (const { id } of left) {
    await tx
      .deleteFrom('providedMemberships')
      .where('userId', '=', user)
      .where('groupId', '=', id)
      .where('source', '=', source)
      .execute();
  }
  const tunnels = await knowTunnels(services, tx, 'user', user);
  await reevaluate(services, tx, tunnels, 'group_changed');
  await services.audit.append(
    {
      actor: source.replace(' ', ':'),
      action: 'user.groups',
      subject: user,
      outcome: 'ok',
      details: { groups, added, removed: left.map(({ name }) => name) },
    },
    tx,
  );
  return true;
}
