import * as v from 'valibot';
import { rawPublicKey, verifyingKey } from '../../../../protocol/index.ts';
import { exportRecord, verifyAudit } from '../../audit/index.ts';
import { readControlPlanes } from '../../enrolment/bundle.ts';
import { defineCommand, type Command } from '../command.ts';
import { instantMs, word } from './schema.ts';

const pageRows = 1_000;

/** How far a reader has come with each writer: pages go by time, and within a writer by position. */
const cursor = v.record(v.pipe(v.string(), v.maxLength(64)), instantMs);

export const auditCommands: readonly Command[] = [
  defineCommand(
    'audit.tail',
    'read',
    v.strictObject({
      after: v.optional(cursor),
      limit: v.optional(
        v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(pageRows)),
        20,
      ),
    }),
    async ({ audit }, { after, limit }) => {
      const rows =
        after === undefined
          ? await audit.read({ latest: true, limit })
          : await audit.read({ after, limit: pageRows });
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
      after: cursor,
    }),
    async ({ audit }, { sinceMs, untilMs, user, app, after }) => {
      const rows = await audit.read({
        sinceMs,
        after,
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
    const { members, former } = await readControlPlanes(authority, store.db);
    const others = [...members, ...former].map(({ auditKey }) =>
      verifyingKey(Buffer.from(auditKey, 'base64url')),
    );
    return verifyAudit(store.db, [own, ...others]);
  }),
];
