import type { AppId, SiteId, ToConnector } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { Reader } from '../store/index.ts';

/** No connector serves more apps. */
const maxApps = 256;

/** Names and ids of a site's apps, as its connectors are told. */
export async function readAppIds(db: Reader, site: SiteId): Promise<[string, AppId][]> {
  const rows = await db
    .selectFrom('apps')
    .select(['name', 'id'])
    .where('siteId', '=', site)
    .orderBy('name')
    .limit(maxApps)
    .execute();
  return rows.map((row) => [row.name, row.id]);
}

/** Tells the connectors of a site which apps it has now. */
export async function tellAppIds(services: Services, site: SiteId): Promise<void> {
  const appIds = await readAppIds(services.store.db, site);
  const message: ToConnector = { type: 'app_ids', appIds };
  for (const peer of services.peers.connectors.values()) {
    if (peer.site === site) peer.send(message);
  }
}
