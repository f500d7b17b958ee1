import { newId, ZtnaError } from '../../../../protocol/index.ts';
import { defineCommand, type Command } from '../command.ts';
import { alreadyThere, checkName, getSite } from '../lookup.ts';
import { byName, none } from './schema.ts';
import type { Reader, Site, Tx } from '../../store/index.ts';

async function describe(db: Reader | Tx, site: Site) {
  const apps = await db
    .selectFrom('apps')
    .select('name')
    .where('siteId', '=', site.id)
    .orderBy('name')
    .execute();
  const connectors = await db
    .selectFrom('connectors')
    .select('name')
    .where('siteId', '=', site.id)
    .where('state', '!=', 'removed')
    .orderBy('name')
    .execute();
  return {
    id: site.id,
    name: site.name,
    apps: apps.map(({ name }) => name),
    connectors: connectors.map(({ name }) => name),
  };
}

export const siteCommands: readonly Command[] = [
  defineCommand('site.add', 'change', byName, async ({ store, clock, audit }, { name }, actor) => {
    checkName('site', name);
    return store.write(async (tx) => {
      const row: Site = { id: newId('site'), name, createdAtMs: clock.nowMs() };
      const added = await tx
        .insertInto('sites')
        .values(row)
        .onConflict((conflict) => conflict.column('name').doNothing())
        .returning('id')
        .executeTakeFirst();
      if (!added) throw alreadyThere('site', name);
      await audit.append({ actor, action: 'site.add', subject: name, outcome: 'ok' }, tx);
      return { id: row.id, name };
    });
  }),

  defineCommand('site.list', 'read', none, async ({ store }) => {
    const sites = await store.db.selectFrom('sites').selectAll().orderBy('name').execute();
    return Promise.all(sites.map((site) => describe(store.db, site)));
  }),

  defineCommand('site.show', 'read', byName, async ({ store }, { name }) =>
    describe(store.db, await getSite(store.db, name)),
  ),

  defineCommand('site.remove', 'change', byName, async ({ store, audit }, { name }, actor) =>
    store.write(async (tx) => {
      const site = await getSite(tx, name);
      const { apps, connectors } = await describe(tx, site);
      if (apps.length > 0 || connectors.length > 0) {
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: `site ${name} still has ${[...apps, ...connectors].join(', ')}`,
          hint: 'remove its apps and connectors first',
        });
      }
      await tx
        .updateTable('invites')
        .set({ siteId: null, revoked: 1 })
        .where('siteId', '=', site.id)
        .execute();
      await tx.deleteFrom('connectors').where('siteId', '=', site.id).execute();
      await tx.deleteFrom('sites').where('id', '=', site.id).execute();
      await audit.append({ actor, action: 'site.remove', subject: name, outcome: 'ok' }, tx);
      return { name };
    }),
  ),
];
