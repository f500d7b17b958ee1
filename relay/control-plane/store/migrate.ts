import { sql, type Kysely } from 'kysely';
import { Migrator } from 'kysely/migration';
import { ZtnaError } from '../../../protocol/index.ts';
import { watchFacts } from './fact-stamps.ts';
import { migrations } from './migrations.ts';
import type { Database } from './database.ts';

/** Brings the schema up to date, and sees to it that changes of facts are heard of. Throws ERR_CONFIG_INVALID when a newer release wrote the store, or what failed. */
export async function migrate(db: Kysely<Database>, schema?: string): Promise<void> {
  const migrator = new Migrator({
    db,
    provider: { getMigrations: () => Promise.resolve(migrations) },
    ...(schema === undefined ? {} : { migrationTableSchema: schema }),
  });
  const { error, results } = await migrator.migrateToLatest();
  if (error === undefined) {
    await watchFacts(db.withoutPlugins() as unknown as Kysely<never>, schema);
    return;
  }
  const failed = results?.find((result) => result.status === 'Error')?.migrationName;
  if (failed === undefined && !(await hasUnknown(db))) throw error as Error;
  const hint = 'start the release that wrote it, or restore a backup';
  if (failed === undefined) {
    const message = 'the store was written by another release of this program';
    throw new ZtnaError('ERR_CONFIG_INVALID', { message, hint });
  }
  const message = `the store could not be brought to ${failed}`;
  throw new ZtnaError('ERR_CONFIG_INVALID', { message, hint, cause: error });
}

/** True when a migration was carried out that this release does not have. */
async function hasUnknown(db: Kysely<Database>): Promise<boolean> {
  const { rows } = await sql<{ name: string }>`select name from kysely_migration`.execute(db);
  return rows.some(({ name }) => !Object.hasOwn(migrations, name));
}
