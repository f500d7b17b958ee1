import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { ZtnaError } from '../../../../protocol/index.ts';
import { getProvider } from '../../identity/oidc/settings.ts';
import { scimPath } from '../../scim/resource.ts';
import { maxTokens, newTokenSecret } from '../../scim/token.ts';
import { defineCommand, type Command } from '../command.ts';
import { alreadyThere, checkName } from '../lookup.ts';
import { byName, none, word } from './schema.ts';

export const scimTokenCommands: readonly Command[] = [
  defineCommand(
    'scim-token.add',
    'change',
    v.strictObject({ name: word, provider: v.optional(word) }),
    async ({ store, clock, audit, settings }, args, actor) => {
      const { name, provider = null } = args;
      checkName('SCIM token', name);
      const { secret, secretHash } = newTokenSecret();
      return store.write(async (tx) => {
        if (provider !== null) await getProvider(tx, provider);
        const rows = await tx.selectFrom('scimTokens').select('name').execute();
        if (rows.some((row) => row.name === name)) throw alreadyThere('SCIM token', name);
        if (rows.length >= maxTokens) {
          throw new ZtnaError('ERR_CONFIG_USAGE', {
            message: `there are ${maxTokens} SCIM tokens already`,
            hint: 'remove one that is not used: ztna-relay scim-token remove NAME',
          });
        }
        const row = {
          id: `scm_${randomBytes(16).toString('hex')}`,
          name,
          secretHash,
          provider,
          createdAtMs: clock.nowMs(),
          lastUsedAtMs: null,
        };
        await tx.insertInto('scimTokens').values(row).execute();
        const details = { provider };
        await audit.append(
          { actor, action: 'scim_token.add', subject: name, outcome: 'ok', details },
          tx,
        );
        return { name, provider, url: new URL(scimPath, settings.url).href, token: secret };
      });
    },
  ),

  defineCommand('scim-token.list', 'read', none, async ({ store }) =>
    store.db
      .selectFrom('scimTokens')
      .select(['name', 'provider', 'createdAtMs', 'lastUsedAtMs'])
      .orderBy('name')
      .execute(),
  ),

  defineCommand('scim-token.remove', 'change', byName, async ({ store, audit }, { name }, actor) =>
    store.write(async (tx) => {
      const removed = await tx
        .deleteFrom('scimTokens')
        .where('name', '=', name)
        .returning('id')
        .executeTakeFirst();
      if (!removed) {
        throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
          message: `there is no SCIM token ${name}`,
          hint: 'see what there is: ztna-relay scim-token list',
        });
      }
      await audit.append({ actor, action: 'scim_token.remove', subject: name, outcome: 'ok' }, tx);
      return { name };
    }),
  ),
];
