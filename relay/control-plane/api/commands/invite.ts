import * as v from 'valibot';
import { encodeEnrolmentCode, ZtnaError, type InviteId } from '../../../../protocol/index.ts';
import { createInvite } from '../../devices/index.ts';
import { findUser } from '../../identity/index.ts';
import { tellAppIds } from '../../channel/connector-apps.ts';
import { defineCommand, type Command } from '../command.ts';
import { checkName, ensureSite, getService, getSite } from '../lookup.ts';
import { addApp } from './app.ts';
import { byId, none, word, words } from './schema.ts';
import { addUser, joinGroups } from './user.ts';
import type { RelayInviteDetails } from '../../enrolment/enrol-relay.ts';
import { refuseTaken } from '../../relays/relay.ts';
import type { Services } from '../../services.ts';
import type { Site, Tx } from '../../store/index.ts';

const ttlMs = v.pipe(v.number(), v.safeInteger(), v.minValue(1_000), v.maxValue(90 * 86_400_000));

/** How many machines one code enrols. */
const uses = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(10_000));

/** As `url:` of relay.yaml. */
const relayUrl = v.pipe(
  v.string(),
  v.maxLength(256),
  v.check(
    (text) => /^https:\/\/[^\s/?#@]+\/?$/.test(text) && URL.canParse(text),
    'must have the form https://HOST:PORT',
  ),
);

function toCode(services: Services, secret: Buffer): string {
  const { authority, settings } = services;
  return encodeEnrolmentCode({ rootId: authority.rootId, secret, url: settings.url });
}

/** The site that a connector is invited to; with apps, the site of the connector's own name, made with them. */
async function siteFor(
  services: Services,
  tx: Tx,
  args: {
    readonly name: string;
    readonly site?: string | undefined;
    readonly apps: readonly string[];
  },
): Promise<Site> {
  if (args.apps.length === 0) {
    if (args.site !== undefined) return getSite(tx, args.site);
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'say which apps the connector serves',
      hint: 'add --app NAME, or --site SITE for a site that has its apps',
    });
  }
  const nowMs = services.clock.nowMs();
  const site = await ensureSite(tx, args.site ?? args.name, nowMs);
  for (const name of args.apps) {
    const known = await tx
      .selectFrom('apps')
      .select('siteId')
      .where('name', '=', name)
      .executeTakeFirst();
    if (known?.siteId === site.id) continue;
    if (known) {
      throw new ZtnaError('ERR_CONFIG_EXISTS', {
        message: `app ${name} belongs to another site`,
        hint: `move it first: ztna-relay app set ${name} --site ${site.name}`,
      });
    }
    await addApp(
      tx,
      { name, siteId: site.id, kind: 'tcp', portHint: null, labelsJson: '{}' },
      nowMs,
    );
  }
  return site;
}

export const inviteCommands: readonly Command[] = [
  defineCommand(
    'invite.user',
    'change',
    v.strictObject({ name: word, groups: words, ttlMs }),
    async (services, args, actor) => {
      const { store, clock, audit } = services;
      checkName('user', args.name);
      return store.write(async (tx) => {
        const nowMs = clock.nowMs();
        const user = (await findUser(tx, args.name)) ?? (await addUser(tx, args.name, nowMs));
        await joinGroups(tx, user, args.groups, nowMs);
        const expiresAtMs = nowMs + args.ttlMs;
        const { invite, secret } = await createInvite(tx, {
          kind: 'user',
          subject: user.id,
          expiresAtMs,
          nowMs,
        });
        await audit.append(
          {
            actor,
            action: 'invite.user',
            subject: invite.id,
            outcome: 'ok',
            user: user.name,
            details: { groups: args.groups, expiresAtMs },
          },
          tx,
        );
        return { code: toCode(services, secret), invite: invite.id, expiresAtMs };
      });
    },
  ),

  defineCommand(
    'invite.service',
    'change',
    v.strictObject({ name: word, ttlMs, uses }),
    async (services, args, actor) => {
      const { store, clock, audit } = services;
      return store.write(async (tx) => {
        const nowMs = clock.nowMs();
        const user = await getService(tx, args.name);
        const expiresAtMs = nowMs + args.ttlMs;
        const { invite, secret } = await createInvite(tx, {
          kind: 'user',
          subject: user.id,
          uses: args.uses,
          expiresAtMs,
          nowMs,
        });
        await audit.append(
          {
            actor,
            action: 'invite.service',
            subject: invite.id,
            outcome: 'ok',
            user: user.name,
            details: { uses: args.uses, expiresAtMs },
          },
          tx,
        );
        return { code: toCode(services, secret), invite: invite.id, expiresAtMs };
      });
    },
  ),

  defineCommand(
    'invite.connector',
    'change',
    v.strictObject({
      name: word,
      site: v.optional(word),
      apps: words,
      ttlMs,
      uses,
    }),
    async (services, args, actor) => {
      const { store, clock, audit } = services;
      checkName('connector', args.name);
      const { answer, site } = await store.write(async (tx) => {
        const row = await siteFor(services, tx, args);
        const nowMs = clock.nowMs();
        const expiresAtMs = nowMs + args.ttlMs;
        const { invite, secret } = await createInvite(tx, {
          kind: 'connector',
          subject: args.name,
          siteId: row.id,
          uses: args.uses,
          expiresAtMs,
          nowMs,
        });
        await audit.append(
          {
            actor,
            action: 'invite.connector',
            subject: invite.id,
            outcome: 'ok',
            details: { name: args.name, site: row.name, apps: args.apps, expiresAtMs },
          },
          tx,
        );
        const code = toCode(services, secret);
        return { answer: { code, invite: invite.id, expiresAtMs }, site: row };
      });
      await tellAppIds(services, site.id);
      return answer;
    },
  ),

  defineCommand(
    'invite.relay',
    'change',
    v.strictObject({ name: word, url: relayUrl, isControl: v.boolean(), ttlMs }),
    async (services, args, actor) => {
      const { store, clock, audit } = services;
      const { name, isControl } = args;
      checkName('relay', name);
      if (isControl && !services.authority.hasRoot) {
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: 'a control plane joins where the root key is, which is not here',
          hint: 'run this on the relay that was made by init without --join; or leave out --control-plane',
        });
      }
      const details: RelayInviteDetails = { url: args.url.replace(/\/$/, ''), isControl };
      return store.write(async (tx) => {
        await refuseTaken(tx, { name, url: details.url });
        const nowMs = clock.nowMs();
        const expiresAtMs = nowMs + args.ttlMs;
        const { invite, secret } = await createInvite(tx, {
          kind: 'relay',
          subject: name,
          expiresAtMs,
          nowMs,
          details,
        });
        await audit.append(
          {
            actor,
            action: 'invite.relay',
            subject: invite.id,
            outcome: 'ok',
            details: { name, ...details, expiresAtMs },
          },
          tx,
        );
        return { code: toCode(services, secret), invite: invite.id, expiresAtMs };
      });
    },
  ),

  defineCommand('invite.list', 'read', none, async ({ store, clock }) => {
    const rows = await store.db
      .selectFrom('invites')
      .leftJoin('users', (join) => join.onRef('users.id', '=', 'invites.subject' as never))
      .select([
        'invites.id',
        'invites.kind',
        'invites.subject',
        'users.name as userName',
        'usesLeft',
      ])
      .select(['invites.expiresAtMs', 'revoked'])
      .orderBy('invites.createdAtMs', 'desc')
      .execute();
    const nowMs = clock.nowMs();
    return rows.map((row) => ({
      id: row.id,
      kind: row.kind,
      subject: row.userName ?? row.subject,
      usesLeft: row.usesLeft,
      expiresAtMs: row.expiresAtMs,
      state:
        row.revoked === 1
          ? 'revoked'
          : row.usesLeft === 0
            ? 'used'
            : row.expiresAtMs <= nowMs
              ? 'expired'
              : 'open',
    }));
  }),

  defineCommand('invite.revoke', 'change', byId, async ({ store, audit }, { id }, actor) =>
    store.write(async (tx) => {
      const row = await tx
        .updateTable('invites')
        .set({ revoked: 1 })
        .where('id', '=', id as InviteId)
        .returning('id')
        .executeTakeFirst();
      if (!row) {
        throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `there is no invitation ${id}` });
      }
      await audit.append({ actor, action: 'invite.revoke', subject: id, outcome: 'ok' }, tx);
      return { id };
    }),
  ),
];
