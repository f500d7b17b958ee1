import * as v from 'valibot';
import { newId, ZtnaError } from '../../../../protocol/index.ts';
import { cutOff, disablersOf, disableUser, enableUser, removeUser } from '../../access/cut-off.ts';
import { reevaluate } from '../../verification/reevaluate.ts';
import { readGroups } from '../../grant/facts.ts';
import {
  endBrowserSessions,
  hasTotp,
  preparePassword,
  removePasskeys,
  removeRecoveryCodes,
  removeTotp,
} from '../../identity/index.ts';
import { getProvider } from '../../identity/oidc/settings.ts';
import { knowTunnels } from '../../live/replica.ts';
import { scopeOf } from '../../scim/resource.ts';
import { defineCommand, type Command } from '../command.ts';
import { alreadyThere, checkName, ensureGroup, getUser } from '../lookup.ts';
import { byName, instantMs, none, word, words } from './schema.ts';
import type { Services } from '../../services.ts';
import type { Tx, User } from '../../store/index.ts';

const settings = v.strictObject({
  name: word,
  groups: words,
  role: v.optional(v.picklist(['admin', 'helpdesk', 'auditor'])),
  expiresAtMs: v.optional(instantMs),
  password: v.optional(v.pipe(v.string(), v.maxLength(4096))),
});
const additions = v.strictObject({ ...settings.entries, provider: v.optional(word) });
const changes = v.strictObject({
  ...settings.entries,
  resetOtp: v.optional(v.boolean(), false),
  resetPasskeys: v.optional(v.boolean(), false),
});
type Settings = v.InferOutput<typeof settings>;

/** Adds a user without password or groups. Throws ERR_CONFIG_EXISTS. */
export async function addUser(
  tx: Tx,
  name: string,
  nowMs: number,
  more: Partial<
    Pick<
      User,
      'kind' | 'provider' | 'subject' | 'externalId' | 'displayName' | 'provisionedBy' | 'disabled'
    >
  > = {},
): Promise<User> {
  checkName('user', name);
  const user: User = {
    id: newId('user'),
    name,
    role: null,
    disabled: 0,
    passwordHash: null,
    expiresAtMs: null,
    createdAtMs: nowMs,
    kind: 'person',
    provider: null,
    subject: null,
    externalId: null,
    displayName: null,
    provisionedBy: null,
    disabledByJson: '[]',
    ...more,
  };
  const added = await tx
    .insertInto('users')
    .values(user)
    .onConflict((conflict) => conflict.column('name').doNothing())
    .returning('id')
    .executeTakeFirst();
  if (!added) throw alreadyThere('user', name);
  return user;
}

/** Puts a user into groups, which are made if need be; a place that was to end is kept for good. */
export async function joinGroups(
  tx: Tx,
  user: User,
  groups: readonly string[],
  nowMs: number,
): Promise<void> {
  for (const name of groups) {
    const { id: groupId } = await ensureGroup(tx, name, nowMs);
    await tx
      .insertInto('memberships')
      .values({ userId: user.id, groupId, untilMs: null, createdAtMs: nowMs })
      .onConflict((conflict) =>
        conflict.columns(['userId', 'groupId']).doUpdateSet({ untilMs: null }),
      )
      .execute();
  }
}

async function change(services: Services, tx: Tx, user: User, args: Settings, hash: string | null) {
  const nowMs = services.clock.nowMs();
  const set = {
    ...(args.role === undefined ? {} : { role: args.role }),
    ...(args.expiresAtMs === undefined ? {} : { expiresAtMs: args.expiresAtMs }),
    ...(hash === null ? {} : { passwordHash: hash }),
  };
  if (Object.keys(set).length > 0) {
    await tx.updateTable('users').set(set).where('id', '=', user.id).execute();
  }
  await joinGroups(tx, user, args.groups, nowMs);
}

function details(args: Settings): Record<string, unknown> {
  const { password, ...rest } = args;
  return { ...rest, password: password !== undefined };
}

/** Throws ERR_CONFIG_USAGE for who proves to be himself elsewhere, or by a key. */
function refuseWithoutPassword(user: User): void {
  if (user.kind === 'service') {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `${user.name} is a service, which has no password`,
      hint: `give it a key: ztna-relay service trust ${user.name} --key FILE`,
    });
  }
  if (user.provider === null) return;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: `${user.name} signs in at ${user.provider} and has no password here`,
    hint: 'for break-glass, add a user of its own',
  });
}

const link = v.strictObject({
  name: word,
  provider: v.optional(word),
  subject: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(255))),
  scim: v.optional(v.boolean(), false),
});

/**
 * Says whose user it is from here on: a provider's, which ends the sessions that were opened otherwise and all ways to sign in here,
 * and whether a directory may change it.
 */
async function linkUser(
  services: Services,
  tx: Tx,
  actor: string,
  args: v.InferOutput<typeof link>,
): Promise<void> {
  const { provider, subject = null, scim } = args;
  const user = await getUser(tx, args.name);
  if (user.kind === 'service') {
    throw new ZtnaError('ERR_CONFIG_USAGE', { message: `${user.name} is a service` });
  }
  if (provider === undefined && !scim) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'say whose user it is',
      hint: 'add --provider NAME, or --scim for a directory',
    });
  }
  if (subject !== null && (provider ?? user.provider) === null) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'a subject is what a provider calls a user',
      hint: 'add --provider NAME',
    });
  }
  if (subject !== null) await refuseTakenSubject(tx, user, provider ?? user.provider, subject);
  const isMoved = provider !== undefined && provider !== user.provider;
  if (provider !== undefined) await getProvider(tx, provider);
  const provisionedBy = scopeOf(provider ?? user.provider);
  await tx
    .updateTable('users')
    .set({
      ...(provider === undefined ? {} : { provider, passwordHash: null }),
      ...(isMoved || subject !== null ? { subject } : {}),
      ...(scim ? { provisionedBy } : {}),
    })
    .where('id', '=', user.id)
    .execute();
  if (provider !== undefined) await forgetFactors(tx, user);
  const tunnelsEnded = isMoved ? await cutOff(services, tx, user, 'user_linked') : 0;
  const told = { provider: provider ?? user.provider, subject, scim, tunnelsEnded };
  await record(services, tx, actor, 'user.link', user, told);
}

/** Who signs in at a provider signs in nowhere else: neither by a passkey nor with a second factor here. */
async function forgetFactors(tx: Tx, user: User): Promise<void> {
  await removeTotp(tx, user.id);
  await forgetPasskeys(tx, user);
  await endBrowserSessions(tx, user.id);
}

/** With the recovery codes: whoever holds a stolen passkey could have had them made. */
async function forgetPasskeys(tx: Tx, user: User): Promise<number> {
  await removeRecoveryCodes(tx, user.id);
  return removePasskeys(tx, user.id);
}

async function refuseTakenSubject(
  tx: Tx,
  user: User,
  provider: string | null,
  subject: string,
): Promise<void> {
  const other = await tx
    .selectFrom('users')
    .select(['id', 'name'])
    .where('provider', '=', provider)
    .where('subject', '=', subject)
    .executeTakeFirst();
  if (other && other.id !== user.id) {
    throw alreadyThere('user', `of that subject: ${other.name}`);
  }
}

async function describe(services: Services, user: User): Promise<Record<string, unknown>> {
  const nowMs = services.clock.nowMs();
  const groups = await readGroups(services.store.db, user.id, nowMs);
  const hasExpired = user.expiresAtMs !== null && user.expiresAtMs <= nowMs;
  return {
    id: user.id,
    name: user.name,
    kind: user.kind,
    provider: user.kind === 'service' ? null : (user.provider ?? 'local'),
    groups: groups.map((group) => group.name),
    state: user.disabled === 1 ? 'disabled' : hasExpired ? 'expired' : 'active',
    role: user.role,
    hasPassword: user.passwordHash !== null,
    displayName: user.displayName,
    subject: user.subject,
    externalId: user.externalId,
    provisionedBy: user.provisionedBy,
    disabledBy: disablersOf(user),
    hasOtp: await hasTotp(services.store.db, user.id),
    expiresAtMs: user.expiresAtMs,
    createdAtMs: user.createdAtMs,
  };
}

export const userCommands: readonly Command[] = [
  defineCommand('user.add', 'change', additions, async (services, args, actor) => {
    checkName('user', args.name);
    if (args.provider !== undefined && args.password !== undefined) {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: `a user of ${args.provider} has no password here`,
        hint: 'leave out one of them',
      });
    }
    const hash =
      args.password === undefined
        ? null
        : await preparePassword(args.password, args.name, { priority: 'admin' });
    const user = await services.store.write(async (tx) => {
      const provider = args.provider ?? null;
      if (provider !== null) await getProvider(tx, provider);
      const added = await addUser(tx, args.name, services.clock.nowMs(), { provider });
      await change(services, tx, added, args, hash);
      await record(services, tx, actor, 'user.add', added, details(args));
      return added;
    });
    return describe(services, await getUser(services.store.db, user.name));
  }),

  defineCommand('user.set', 'change', changes, async (services, args, actor) => {
    const hash =
      args.password === undefined
        ? null
        : await preparePassword(args.password, args.name, { priority: 'admin' });
    await services.store.write(async (tx) => {
      const user = await getUser(tx, args.name);
      if (hash !== null) refuseWithoutPassword(user);
      await change(services, tx, user, args, hash);
      if (args.resetOtp) await removeTotp(tx, user.id);
      const passkeysRemoved = args.resetPasskeys ? await forgetPasskeys(tx, user) : 0;
      // Whoever is signed in on the pages was so by what no longer counts, and could change sign-in methods.
      if (hash !== null || args.resetPasskeys) await endBrowserSessions(tx, user.id);
      const told = { ...details(args), passkeysRemoved };
      await record(services, tx, actor, 'user.set', user, told);
      const tunnels = await knowTunnels(services, tx, 'user', user.id);
      await reevaluate(services, tx, tunnels, 'user_changed');
    });
    return describe(services, await getUser(services.store.db, args.name));
  }),

  defineCommand('user.link', 'change', link, async (services, args, actor) => {
    await services.store.write((tx) => linkUser(services, tx, actor, args));
    return describe(services, await getUser(services.store.db, args.name));
  }),

  defineCommand('user.list', 'read', none, async (services) => {
    const users = await services.store.db.selectFrom('users').selectAll().orderBy('name').execute();
    return Promise.all(users.map((user) => describe(services, user)));
  }),

  defineCommand('user.show', 'read', byName, async (services, { name }) => {
    const user = await getUser(services.store.db, name);
    const devices = await services.store.db
      .selectFrom('devices')
      .select(['id', 'hostname', 'state'])
      .where('userId', '=', user.id)
      .execute();
    return {
      ...(await describe(services, user)),
      devices: devices.map((device) => `${device.id} ${device.hostname} ${device.state}`),
      openTunnels: services.tunnels.about('user', user.id).length,
    };
  }),

  defineCommand('user.disable', 'change', byName, async (services, { name }, actor) =>
    services.store.write(async (tx) => {
      const user = await getUser(tx, name);
      const tunnelsEnded = await disableUser(services, tx, user, 'admin');
      await record(services, tx, actor, 'user.disable', user, { tunnelsEnded });
      return { name: user.name, tunnelsEnded };
    }),
  ),

  defineCommand('user.enable', 'change', byName, async (services, { name }, actor) =>
    services.store.write(async (tx) => {
      const user = await getUser(tx, name);
      const left = await enableUser(services, tx, user, 'admin', 'signals');
      if (left.length > 0) {
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: `the directory that provisions ${user.name} says that it is not active`,
          hint: 'activate the user there',
        });
      }
      await record(services, tx, actor, 'user.enable', user, {});
      return { name: user.name };
    }),
  ),

  defineCommand('user.remove', 'change', byName, async (services, { name }, actor) =>
    services.store.write(async (tx) => {
      const user = await getUser(tx, name);
      const tunnelsEnded = await removeUser(services, tx, user);
      await record(services, tx, actor, 'user.remove', user, { tunnelsEnded });
      return { name: user.name, tunnelsEnded };
    }),
  ),
];

async function record(
  services: Services,
  tx: Tx,
  actor: string,
  action: string,
  user: User,
  facts: Record<string, unknown>,
): Promise<void> {
  await services.audit.append(
    { actor, action, subject: user.id, outcome: 'ok', user: user.name, details: facts },
    tx,
  );
}
