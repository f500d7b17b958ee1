import test from 'ava';
import { missingServer } from '../../support/postgresql.ts';
import { stopOwnPostgres } from '../../support/shared-postgresql.ts';
import { fileEngine } from './fixture.ts';

/** Declares the tests of another file once more, on PostgreSQL; skipped, with the reason, where there is no server. */
export async function declareOnPostgres(suite: string): Promise<void> {
  const missing = missingServer();
  if (missing !== undefined) {
    test.skip(`${suite} on PostgreSQL: ${missing}`, (t) => {
      t.fail();
    });
    return;
  }
  fileEngine.isPostgres = true;
  await import(`./${suite}.test.ts`);
  test.after.always('stop PostgreSQL', () => stopOwnPostgres());
}
