import * as v from 'valibot';
import { isSessionLive, sessionEndMs, sessionMethods } from '../../identity/index.ts';
import { defineCommand, type Command } from '../command.ts';
import { getSession, getUser } from '../lookup.ts';
import { maxRows } from './object.ts';
import { byId, word } from './schema.ts';
import type { SessionId } from '../../../../protocol/index.ts';
import type { Services } from '../../services.ts';
import type { Session } from '../../store/index.ts';

/** How it stands with asking the provider again whether the user may still be signed in. */
async function readCheck({ store }: Services, session: SessionId) {
  const row = await store.db
    .selectFrom('providerGrants')
    .select(['lastOkAtMs', 'nextCheckAtMs', 'unreachableSinceMs', 'lastError'])
    .where('sessionId', '=', session)
    .executeTakeFirst();
  if (!row) return null;
  return { state: row.unreachableSinceMs === null ? 'ok' : 'unreachable', ...row };
}

async function describe(services: Services, row: Session) {
  const { store, clock } = services;
  const nowMs = clock.nowMs();
  const user = await store.db
    .selectFrom('users')
    .select(['name', 'kind'])
    .where('id', '=', row.userId)
    .executeTakeFirst();
  const device = await store.db
    .selectFrom('devices')
    .select('hostname')
    .where('id', '=', row.deviceId)
    .executeTakeFirst();
  return {
    id: row.id,
    user: user?.name ?? row.userId,
    kind: user?.kind ?? null,
    device: row.deviceId,
    hostname: device?.hostname ?? null,
    address: row.address === '' ? null : row.address,
    provider: row.provider,
    methods: sessionMethods(row),
    acr: row.acr === '' ? null : row.acr,
    state: isSessionLive(row, nowMs) ? 'live' : 'ended',
    endReason: row.endReason,
    authenticatedAtMs: row.authenticatedAtMs,
    ageSeconds: Math.max(0, Math.floor((nowMs - row.authenticatedAtMs) / 1_000)),
    startedAtMs: row.createdAtMs,
    lastSeenAtMs: row.lastSeenAtMs,
    untilMs: row.endedAtMs ?? sessionEndMs(row),
    absoluteUntilMs: row.absoluteEndAtMs,
    openTunnels: services.tunnels.about('session', row.id).length,
    providerCheck: await readCheck(services, row.id),
  };
}

/** A session with how unusual its user behaves now, and what adds to that. */
async function describeRisk(services: Services, row: Session) {
  const who = { user: row.userId, device: row.deviceId, session: row.id };
  const riskOf = await services.risk.read(services.store.db, who, services.clock.nowMs());
  const { score, contributions } = riskOf(null);
  return { ...(await describe(services, row)), risk: { score, contributions } };
}

export const sessionCommands: readonly Command[] = [
  defineCommand(
    'session.list',
    'read',
    v.strictObject({ user: v.optional(word) }),
    async (services, args) => {
      const { db } = services.store;
      let sessions = db.selectFrom('sessions').selectAll().where('endedAtMs', 'is', null);
      if (args.user !== undefined) {
        sessions = sessions.where('userId', '=', (await getUser(db, args.user)).id);
      }
      const rows = await sessions.orderBy('createdAtMs', 'desc').limit(maxRows).execute();
      return Promise.all(rows.map((row) => describe(services, row)));
    },
  ),
  defineCommand('session.show', 'read', byId, async (services, { id }) =>
    describeRisk(services, await getSession(services.store.db, id)),
  ),
];
