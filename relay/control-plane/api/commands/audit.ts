import * as v from 'valibot';
import { rawPublicKey, verifyingKey } from '../../../../protocol/index.ts';
import { exportRecord, verifyAudit } from '../../audit/index.ts';
import { readControlPlanes } from '../../enrolment/bundle.ts';
import { defineCommand, type Command } from '../command.ts';
import { instantMs, word } from './schema.ts';

const pageRows = 1_000;

export const auditCommands: readonly Command[] = [
  defineCommand(
    'audit.tail',
    'read',
    v.strictObject({
      after: v.optional(instantMs),
      limit: v.optional(
        v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(pageRows)),
        20,
      ),
    }),
    async ({ audit }, { after, limit }) => {
      const rows =
        after === undefined
          ? await audit.read({ latest: true, limit })
          : await audit.read({ afterPosition: after, limit: pageRows });
      return rows.map(exportRecord);
    },
  ),

  defineCommand(
    'audit.export',
    'read',
    v.strictObject({
      sinceMs: instantMs,
      untilMs: v.optional(instantMs),
      user: v.optional(word),
      app: v.optional(word),
      after: instantMs,
    }),
    async ({ audit }, { sinceMs, untilMs, user, app, after }) => {
      const rows = await audit.read({
        sinceMs,
        afterPosition: after,
        limit: pageRows,
        ...(untilMs === undefined ? {} : { untilMs }),
        ...(user === undefined ? {} : { user }),
        ...(app === undefined ? {} : { app }),
      });
      return rows.map(exportRecord);
    },
  ),

  defineCommand(
    'audit.prune',
    'change',
    v.strictObject({ beforeMs: instantMs }),
    ({ audit }, { beforeMs }, actor) => audit.prune(beforeMs, actor),
  ),

  defineCommand('audit.verify', 'read', v.strictObject({}), async ({ store, authority }) => {
    const own = verifyingKey(rawPublicKey(authority.auditKey.privateKey));
    // Of every control plane, by the root's word.
    const { members } = await readControlPlanes(authority, store.db);
    const others = members.map(({ auditKey }) => verifyingKey(Buffer.from(auditKey, 'base64url')));
    return verifyAudit(store.db, [own, ...others]);
  }),
];
