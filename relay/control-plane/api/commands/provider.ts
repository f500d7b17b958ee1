import * as v from 'valibot';
import { ZtnaError } from '../../../../protocol/index.ts';
import { endSession } from '../../access/end-session.ts';
import { checkKeys, discover } from '../../identity/oidc/provider-book.ts';
import {
  aboutSecret,
  getProvider,
  listProviders,
  providerName,
  providerSettings,
  readSettings,
  redirectUri,
  type StoredProvider,
} from '../../identity/oidc/settings.ts';
import { setProvidedGroups, sourceOf } from '../../identity/oidc/users.ts';
import { readMeta, writeMeta } from '../../store/index.ts';
import type { Services } from '../../services.ts';
import { defineCommand, type Command } from '../command.ts';
import { alreadyThere } from '../lookup.ts';
import { byName, none } from './schema.ts';

const additions = v.strictObject({
  ...v.omit(providerSettings, ['hasDeviceCode']).entries,
  name: providerName,
  secret: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(4_096))),
  /** In place of settings that are there: sessions and users stay. */
  replace: v.optional(v.boolean(), false),
});

async function describe(services: Services, provider: StoredProvider) {
  const { name, settings, row } = provider;
  const { ca, ...shown } = settings;
  const live = services.store.db
    .selectFrom('providerGrants')
    .innerJoin('sessions', 'sessions.id', 'providerGrants.sessionId')
    .where('sessions.endedAtMs', 'is', null)
    .where('providerGrants.provider', '=', name);
  const sessions = await live.select('sessions.id').execute();
  const unreachable = await live
    .select(['providerGrants.unreachableSinceMs', 'providerGrants.lastError'])
    .where('providerGrants.unreachableSinceMs', 'is not', null)
    .orderBy('providerGrants.unreachableSinceMs')
    .executeTakeFirst();
  const relays = await services.store.db
    .selectFrom('relays')
    .select('url')
    .where('isControl', '=', 1)
    .where('state', '!=', 'removed')
    .orderBy('createdAtMs')
    .execute();
  return {
    name,
    ...shown,
    hasSecret: row.sealedSecret !== null,
    hasCa: ca !== null,
    redirectUris: relays.map(({ url }) => redirectUri(url, name)),
    logoutUri: new URL(`/oidc/${name}/logout`, services.settings.url).href,
    sessions: sessions.length,
    unreachableSinceMs: unreachable?.unreachableSinceMs ?? null,
    lastError: unreachable?.lastError ?? null,
    createdAtMs: row.createdAtMs,
  };
}

/** Which provider the users of that name are of: another one must not take them over under the same name. */
function issuerKey(name: string): string {
  return `provider_issuer ${name}`;
}

export const providerCommands: readonly Command[] = [
  defineCommand('provider.add', 'change', additions, async (services, args, actor) => {
    const { store, clock, audit, sealer } = services;
    const { name, secret, replace, ...rest } = args;
    const asked = { ...rest, hasDeviceCode: false };
    const { metadata } = await discover(asked, secret ?? null);
    await checkKeys(asked, metadata);
    const settings = {
      ...asked,
      issuer: metadata.issuer,
      hasDeviceCode: metadata.device_authorization_endpoint !== undefined,
    };
    const stored = await store.write(async (tx) => {
      const before = await tx
        .selectFrom('providers')
        .selectAll()
        .where('name', '=', name)
        .executeTakeFirst();
      if (before && !replace) throw alreadyThere('provider', name);
      const issuer = await readMeta(tx, issuerKey(name));
      if (issuer !== undefined && issuer !== settings.issuer) {
        const user = await tx
          .selectFrom('users')
          .select('id')
          .where('provider', '=', name)
          .executeTakeFirst();
        if (before ?? user) {
          throw new ZtnaError('ERR_CONFIG_EXISTS', {
            message: `${name} has been ${issuer}, and its users are of there`,
            hint: 'choose another name',
          });
        }
      }
      await writeMeta(tx, issuerKey(name), settings.issuer);
      const row = {
        settingsJson: JSON.stringify(settings),
        sealedSecret:
          secret === undefined
            ? (before?.sealedSecret ?? null)
            : sealer.seal(secret, aboutSecret(name)),
      };
      await tx
        .insertInto('providers')
        .values({ name, ...row, createdAtMs: clock.nowMs() })
        .onConflict((conflict) => conflict.column('name').doUpdateSet(row))
        .execute();
      const { ca, ...shown } = settings;
      await audit.append(
        {
          ...{ actor, action: before ? 'provider.set' : 'provider.add', subject: name },
          outcome: 'ok',
          details: { ...shown, hasCa: ca !== null, hasSecret: row.sealedSecret !== null },
        },
        tx,
      );
      return { name, ...row, createdAtMs: before?.createdAtMs ?? clock.nowMs() };
    });
    return describe(services, readSettings(stored));
  }),

  defineCommand('provider.list', 'read', none, async (services) => {
    const providers = await listProviders(services.store.db);
    return Promise.all(providers.map((one) => describe(services, one)));
  }),

  defineCommand('provider.show', 'read', byName, async (services, { name }) =>
    describe(services, await getProvider(services.store.db, name)),
  ),

  defineCommand('provider.remove', 'change', byName, async (services, { name }, actor) =>
    services.store.write(async (tx) => {
      await getProvider(tx, name);
      const sessions = await tx
        .selectFrom('sessions')
        .select('id')
        .where('provider', '=', name)
        .where('endedAtMs', 'is', null)
        .execute();
      const how = { reason: 'provider_removed', actor, isMendedBySignIn: false };
      for (const { id } of sessions) await endSession(services, tx, id, how);
      const members = await tx
        .selectFrom('providedMemberships')
        .select('userId')
        .distinct()
        .where('source', '=', sourceOf(name))
        .execute();
      for (const { userId } of members) {
        await setProvidedGroups(services, tx, userId, sourceOf(name), []);
      }
      await tx.deleteFrom('providerGrants').where('provider', '=', name).execute();
      await tx.deleteFrom('providers').where('name', '=', name).execute();
      const details = { sessionsEnded: sessions.length };
      await services.audit.append(
        { actor, action: 'provider.remove', subject: name, outcome: 'ok', details },
        tx,
      );
      return { name, ...details };
    }),
  ),
];
