import * as v from 'valibot';
import { newId, ZtnaError } from '../../../../protocol/index.ts';
import { revokeSubject } from '../../access/end-tunnels.ts';
import { tellAppIds } from '../../channel/connector-apps.ts';
import { connectorsServing, isAppOnline, isHealthyAt } from '../../grant/choose-connector.ts';
import { reevaluate } from '../../verification/reevaluate.ts';
import { knowTunnels } from '../../live/replica.ts';
import { defineCommand, type Command } from '../command.ts';
import { alreadyThere, checkName, getApp, getSite } from '../lookup.ts';
import { byName, none, word } from './schema.ts';
import type { Services } from '../../services.ts';
import type { App, SitesTable, Tx } from '../../store/index.ts';

const kind = v.picklist(['tcp', 'udp', 'http', 'ssh', 'rdp', 'postgres']);
const settings = {
  kind: v.optional(kind),
  labels: v.optional(
    v.record(v.pipe(v.string(), v.maxLength(64)), v.pipe(v.string(), v.maxLength(256))),
  ),
  portHint: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535))),
};

/** Adds an app to a site. Throws ERR_CONFIG_EXISTS. */
export async function addApp(
  tx: Tx,
  app: Pick<App, 'name' | 'siteId' | 'kind' | 'portHint' | 'labelsJson'>,
  nowMs: number,
): Promise<App> {
  checkName('app', app.name);
  const row: App = { id: newId('app'), ...app, createdAtMs: nowMs };
  const added = await tx
    .insertInto('apps')
    .values(row)
    .onConflict((conflict) => conflict.column('name').doNothing())
    .returning('id')
    .executeTakeFirst();
  if (!added) throw alreadyThere('app', app.name);
  return row;
}

async function describe(services: Services, app: App, siteName: SitesTable['name']) {
  const serving = await connectorsServing(services, app);
  const isHealthy = serving.filter((connector) => isHealthyAt(connector, app.name));
  return {
    id: app.id,
    name: app.name,
    site: siteName,
    kind: app.kind,
    online: await isAppOnline(services, app),
    connectors: serving.map((connector) => connector.id),
    healthy: isHealthy.map((connector) => connector.id),
    portHint: app.portHint,
    labels: JSON.parse(app.labelsJson) as Record<string, string>,
  };
}

export const appCommands: readonly Command[] = [
  defineCommand(
    'app.add',
    'change',
    v.strictObject({ name: word, site: word, ...settings }),
    async (services, args, actor) => {
      const { store, clock, audit } = services;
      const { app, site } = await store.write(async (tx) => {
        const siteRow = await getSite(tx, args.site);
        const row = await addApp(
          tx,
          {
            name: args.name,
            siteId: siteRow.id,
            kind: args.kind ?? 'tcp',
            portHint: args.portHint ?? null,
            labelsJson: JSON.stringify(args.labels ?? {}),
          },
          clock.nowMs(),
        );
        await audit.append(
          {
            actor,
            action: 'app.add',
            subject: row.id,
            outcome: 'ok',
            app: row.name,
            details: args,
          },
          tx,
        );
        return { app: row, site: siteRow };
      });
      await tellAppIds(services, site.id);
      return describe(services, app, site.name);
    },
  ),

  defineCommand(
    'app.set',
    'change',
    v.strictObject({ name: word, site: v.optional(word), ...settings }),
    async (services, args, actor) => {
      const { store, audit } = services;
      const sites = await store.write(async (tx) => {
        const app = await getApp(tx, args.name);
        const site = args.site === undefined ? undefined : await getSite(tx, args.site);
        const set = {
          ...(site ? { siteId: site.id } : {}),
          ...(args.kind === undefined ? {} : { kind: args.kind }),
          ...(args.portHint === undefined ? {} : { portHint: args.portHint }),
          ...(args.labels === undefined ? {} : { labelsJson: JSON.stringify(args.labels) }),
        };
        if (Object.keys(set).length === 0) {
          throw new ZtnaError('ERR_CONFIG_USAGE', { message: 'nothing to change was given' });
        }
        await tx.updateTable('apps').set(set).where('id', '=', app.id).execute();
        if (site && site.id !== app.siteId) {
          // The old site's connectors no longer serve it.
          await revokeSubject(services, tx, { kind: 'app', id: app.id }, 'app_moved');
        } else {
          const tunnels = await knowTunnels(services, tx, 'app', app.id);
          await reevaluate(services, tx, tunnels, 'app_changed');
        }
        await audit.append(
          {
            actor,
            action: 'app.set',
            subject: app.id,
            outcome: 'ok',
            app: app.name,
            details: args,
          },
          tx,
        );
        return new Set([app.siteId, site?.id ?? app.siteId]);
      });
      for (const site of sites) await tellAppIds(services, site);
      return { name: args.name };
    },
  ),

  defineCommand('app.list', 'read', none, async (services) => {
    const rows = await services.store.db
      .selectFrom('apps')
      .innerJoin('sites', 'sites.id', 'apps.siteId')
      .selectAll('apps')
      .select('sites.name as siteName')
      .orderBy('apps.name')
      .execute();
    return Promise.all(rows.map((row) => describe(services, row, row.siteName)));
  }),

  defineCommand('app.show', 'read', byName, async (services, { name }) => {
    const app = await getApp(services.store.db, name);
    const site = await services.store.db
      .selectFrom('sites')
      .select('name')
      .where('id', '=', app.siteId)
      .executeTakeFirstOrThrow();
    return {
      ...(await describe(services, app, site.name)),
      openTunnels: services.tunnels.about('app', app.id).length,
    };
  }),

  defineCommand('app.remove', 'change', byName, async (services, { name }, actor) => {
    const { app, tunnelsEnded } = await services.store.write(async (tx) => {
      const row = await getApp(tx, name);
      const count = await revokeSubject(services, tx, { kind: 'app', id: row.id }, 'app_removed');
      await tx.deleteFrom('apps').where('id', '=', row.id).execute();
      await services.audit.append(
        { actor, action: 'app.remove', subject: row.id, outcome: 'ok', app: row.name },
        tx,
      );
      return { app: row, tunnelsEnded: count };
    });
    await tellAppIds(services, app.siteId);
    return { name: app.name, tunnelsEnded };
  }),
];
