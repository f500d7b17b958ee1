import { newId, type DeviceId, type SessionId, type UserId } from '../../../protocol/index.ts';
import { endBrowserSessions } from './browser-session.ts';
import type { Session } from '../store/database.ts';
import type { Reader, Tx } from '../store/store.ts';

export interface SessionLimits {
  readonly idleMs: number;
  readonly absoluteMs: number;
}

/** Writing every touch would be a write per verification; a session's end may be early by this much at most. */
const touchEveryMs = 15_000;

/** When the session ends by itself if nothing more happens, in control time. */
export function sessionEndMs(session: Session): number {
  return Math.min(session.lastSeenAtMs + session.idleMs, session.absoluteEndAtMs);
}

export function isSessionLive(session: Session, nowMs: number): boolean {
  return session.endedAtMs === null && nowMs < sessionEndMs(session);
}

/** Methods of authentication, as `["password","totp"]`. */
export function sessionMethods(session: Session): string[] {
  return JSON.parse(session.methodsJson) as string[];
}

/** Starts a session of `user` on `device`; what that device had before ends, whoever's it was. */
export async function startSession(
  tx: Tx,
  session: {
    readonly userId: UserId;
    readonly deviceId: DeviceId;
    readonly provider: string;
    readonly methods: readonly string[];
    /** The provider's word on how it was done. */
    readonly acr?: string;
    /** When the user was authenticated, where that was before now: a provider may remember its own sign-in. */
    readonly authenticatedAtMs?: number;
    /** Where the sign-in came from. */
    readonly address?: string;
    readonly limits: SessionLimits;
    /** It ends with the user's account at the latest. */
    readonly notAfterMs?: number | null;
    readonly nowMs: number;
  },
): Promise<{ readonly session: Session; readonly replaced: SessionId[] }> {
  const { nowMs, limits } = session;
  const replaced = await endSessions(tx, { deviceId: session.deviceId }, 'signed_in_again', nowMs);
  const row: Session = {
    id: newId('session'),
    userId: session.userId,
    deviceId: session.deviceId,
    provider: session.provider,
    methodsJson: JSON.stringify(session.methods),
    authenticatedAtMs: Math.min(session.authenticatedAtMs ?? nowMs, nowMs),
    createdAtMs: nowMs,
    lastSeenAtMs: nowMs,
    idleMs: limits.idleMs,
    absoluteEndAtMs: Math.min(nowMs + limits.absoluteMs, session.notAfterMs ?? Infinity),
    endedAtMs: null,
    endReason: null,
    address: session.address ?? '',
    acr: session.acr ?? '',
  };
  await tx.insertInto('sessions').values(row).execute();
  return { session: row, replaced };
}

/** The device's live session, or undefined. */
export async function findLiveSession(
  db: Reader | Tx,
  deviceId: DeviceId,
  nowMs: number,
): Promise<Session | undefined> {
  const row = await db
    .selectFrom('sessions')
    .selectAll()
    .where('deviceId', '=', deviceId)
    .where('endedAtMs', 'is', null)
    .orderBy('createdAtMs', 'desc')
    .executeTakeFirst();
  return row && isSessionLive(row, nowMs) ? row : undefined;
}

/** Notes that the session was used, unless it has ended or was noted a moment ago. Answers the row as it is. */
export async function touchSession(tx: Tx, session: Session, nowMs: number): Promise<Session> {
  if (!isSessionLive(session, nowMs) || nowMs - session.lastSeenAtMs < touchEveryMs) return session;
  await tx
    .updateTable('sessions')
    .set({ lastSeenAtMs: nowMs })
    .where('id', '=', session.id)
    .where('endedAtMs', 'is', null)
    .execute();
  return { ...session, lastSeenAtMs: nowMs };
}

/** Ends the sessions that `which` names and are not over; a user's on the pages, too. Answers their ids, for revocation and audit. */
export async function endSessions(
  tx: Tx,
  which: { readonly id: SessionId } | { readonly userId: UserId } | { readonly deviceId: DeviceId },
  reason: string,
  nowMs: number,
): Promise<SessionId[]> {
  let update = tx
    .updateTable('sessions')
    .set({ endedAtMs: nowMs, endReason: reason })
    .where('endedAtMs', 'is', null);
  if ('id' in which) update = update.where('id', '=', which.id);
  else if ('userId' in which) update = update.where('userId', '=', which.userId);
  else update = update.where('deviceId', '=', which.deviceId);
  if ('userId' in which) await endBrowserSessions(tx, which.userId);
  const ended = await update.returning('id').execute();
  return ended.map((row) => row.id);
}

/** Ends what has run out, at most `limit` at once. Answers the sessions that ended. */
export async function endExpiredSessions(tx: Tx, nowMs: number, limit = 256): Promise<Session[]> {
  const expired = await tx
    .selectFrom('sessions')
    .selectAll()
    .where('endedAtMs', 'is', null)
    .where((eb) =>
      eb.or([
        eb('absoluteEndAtMs', '<=', nowMs),
        eb(eb('lastSeenAtMs', '+', eb.ref('idleMs')), '<=', nowMs),
      ]),
    )
    .limit(limit)
    .execute();
  for (const session of expired) {
    const reason = nowMs >= session.absoluteEndAtMs ? 'session_expired' : 'session_idle';
    await endSessions(tx, { id: session.id }, reason, nowMs);
  }
  return expired;
}
