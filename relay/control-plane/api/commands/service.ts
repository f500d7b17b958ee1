import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { ZtnaError } from '../../../../protocol/index.ts';
import { cutOff, removeUser } from '../../access/cut-off.ts';
import { checkSigningKey } from '../../devices/index.ts';
import {
  keySettings,
  maxCredentials,
  openCredential,
  readCredentials,
  tokenSettings,
} from '../../identity/service/credential.ts';
import { issuerKeys } from '../../identity/service/issuer-keys.ts';
import { readGroups } from '../../grant/facts.ts';
import { defineCommand, type Command } from '../command.ts';
import { alreadyThere, getService } from '../lookup.ts';
import { byName, none, word, words } from './schema.ts';
import { addUser, joinGroups } from './user.ts';
import type { Services } from '../../services.ts';
import type { Reader, ServiceCredential, Tx, User } from '../../store/index.ts';

const credential = v.variant('kind', [
  v.strictObject({
    kind: v.literal('key'),
    publicKey: v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{43}$/)),
    ...keySettings.entries,
  }),
  v.strictObject({ kind: v.literal('token'), ...tokenSettings.entries }),
]);
type NewCredential = v.InferOutput<typeof credential>;

/** A credential as it is shown: nothing of it is secret. */
function show(row: ServiceCredential): Record<string, unknown> {
  const opened = openCredential(row);
  const { createdAtMs, lastUsedAtMs } = row;
  const shared = { id: row.id, kind: row.kind, sessionMs: opened.sessionMs };
  if (opened.kind === 'key') {
    return { ...shared, publicKey: opened.publicKey, createdAtMs, lastUsedAtMs };
  }
  const { issuer, audience, claims } = opened.settings;
  return { ...shared, issuer, audience, claims, createdAtMs, lastUsedAtMs };
}

async function describe({ store, clock }: Services, db: Reader, user: User) {
  const credentials = await readCredentials(db, user.id);
  const groups = await readGroups(db, user.id, clock.nowMs());
  const devices = await store.db
    .selectFrom('devices')
    .select(['id', 'hostname'])
    .where('userId', '=', user.id)
    .where('state', '!=', 'revoked')
    .execute();
  return {
    id: user.id,
    name: user.name,
    groups: groups.map(({ name }) => name),
    state: user.disabled === 1 ? 'disabled' : 'active',
    credentials: credentials.map(show),
    devices: devices.map(({ id, hostname }) => `${id} ${hostname}`),
    createdAtMs: user.createdAtMs,
  };
}

/** An issuer is asked at once, so that a mistake shows here and not in a job at night. */
async function check(given: NewCredential): Promise<void> {
  if (given.kind === 'token') await issuerKeys(given);
  else checkSigningKey(Buffer.from(given.publicKey, 'base64url'));
}

async function trust(
  services: Services,
  tx: Tx,
  actor: string,
  user: User,
  given: NewCredential,
): Promise<string> {
  const { clock, audit } = services;
  const known = await readCredentials(tx, user.id);
  if (known.length >= maxCredentials) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `${user.name} has ${maxCredentials} credentials already`,
      hint: `remove one: ztna-relay service distrust ${user.name} ID`,
    });
  }
  const { kind, ...settings } = given;
  const publicKey = given.kind === 'key' ? given.publicKey : null;
  if (publicKey !== null && known.some((row) => row.publicKey === publicKey)) {
    throw alreadyThere('credential', 'with that key');
  }
  const id = `crd_${randomBytes(8).toString('hex')}`;
  const stored: Record<string, unknown> = { ...settings };
  delete stored['publicKey']; // in a column of its own
  await tx
    .insertInto('serviceCredentials')
    .values({
      id,
      userId: user.id,
      kind,
      publicKey,
      settingsJson: JSON.stringify(stored),
      createdAtMs: clock.nowMs(),
      lastUsedAtMs: null,
    })
    .execute();
  const told = { ...stored, ca: undefined };
  await audit.append(
    {
      actor,
      action: 'service.trust',
      subject: user.id,
      outcome: 'ok',
      user: user.name,
      details: { credential: id, kind, publicKey, ...told },
    },
    tx,
  );
  return id;
}

async function record(
  { audit }: Services,
  tx: Tx,
  actor: string,
  action: string,
  user: User,
  details: Record<string, unknown>,
): Promise<void> {
  await audit.append(
    { actor, action, subject: user.id, outcome: 'ok', user: user.name, details },
    tx,
  );
}

export const serviceCommands: readonly Command[] = [
  defineCommand(
    'service.add',
    'change',
    v.strictObject({ name: word, groups: words, credential: v.optional(credential) }),
    async (services, args, actor) => {
      const { store, clock } = services;
      if (args.credential) await check(args.credential);
      return store.write(async (tx) => {
        const nowMs = clock.nowMs();
        const user = await addUser(tx, args.name, nowMs, { kind: 'service' });
        await joinGroups(tx, user, args.groups, nowMs);
        await record(services, tx, actor, 'service.add', user, { groups: args.groups });
        const id = args.credential ? await trust(services, tx, actor, user, args.credential) : null;
        return { id: user.id, name: user.name, credential: id };
      });
    },
  ),

  defineCommand(
    'service.trust',
    'change',
    v.strictObject({ name: word, credential }),
    async (services, args, actor) => {
      await check(args.credential);
      return services.store.write(async (tx) => {
        const user = await getService(tx, args.name);
        const id = await trust(services, tx, actor, user, args.credential);
        return { name: user.name, credential: id };
      });
    },
  ),

  defineCommand(
    'service.distrust',
    'change',
    v.strictObject({ name: word, id: word }),
    async (services, { name, id }, actor) =>
      services.store.write(async (tx) => {
        const user = await getService(tx, name);
        const removed = await tx
          .deleteFrom('serviceCredentials')
          .where('userId', '=', user.id)
          .where('id', '=', id)
          .returning('id')
          .executeTakeFirst();
        if (!removed) {
          throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
            message: `${name} has no credential ${id}`,
            hint: `see what it has: ztna-relay service show ${name}`,
          });
        }
        // Which session it opened is not written down: all end, and whoever has another credential signs in with it.
        const tunnelsEnded = await cutOff(services, tx, user, 'service_credential_removed');
        const details = { credential: id, tunnelsEnded };
        await record(services, tx, actor, 'service.distrust', user, details);
        return { name, credential: id, tunnelsEnded };
      }),
  ),

  defineCommand('service.list', 'read', none, async (services) => {
    const { db } = services.store;
    const users = await db
      .selectFrom('users')
      .selectAll()
      .where('kind', '=', 'service')
      .orderBy('name')
      .execute();
    return Promise.all(
      users.map(async (user) => {
        const { credentials, devices, ...shown } = await describe(services, db, user);
        const used = credentials.map((one) => Number(one['lastUsedAtMs'] ?? 0));
        const lastUsedAtMs = Math.max(0, ...used);
        return {
          ...shown,
          credentials: credentials.length,
          devices: devices.length,
          lastUsedAtMs: lastUsedAtMs === 0 ? null : lastUsedAtMs,
        };
      }),
    );
  }),

  defineCommand('service.show', 'read', byName, async (services, { name }) => {
    const { db } = services.store;
    return describe(services, db, await getService(db, name));
  }),

  defineCommand('service.remove', 'change', byName, async (services, { name }, actor) =>
    services.store.write(async (tx) => {
      const user = await getService(tx, name);
      const tunnelsEnded = await removeUser(services, tx, user);
      await record(services, tx, actor, 'service.remove', user, { tunnelsEnded });
      return { name, tunnelsEnded };
    }),
  ),
];
