import {
  identityVersion,
  ZtnaError,
  type DeviceId,
  type SessionFacts,
} from '../../../protocol/index.ts';
import {
  findLiveSession,
  readFactors,
  sessionEndMs,
  sessionMethods,
  whyNotChange,
} from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Reader, Session, Tx } from '../store/index.ts';

/** The device's live session. Throws ERR_IDENTITY_SIGN_IN_NEEDED. */
export async function needSession(services: Services, device: DeviceId): Promise<Session> {
  const session = await findLiveSession(services.store.db, device, services.clock.nowMs());
  if (!session) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED', { hint: 'run: ztna login', hop: 'client' });
  }
  return session;
}

/** What a device on a channel of that version is told of its session. */
export async function sessionFactsOf(
  services: Services,
  session: Session,
  version: number,
): Promise<SessionFacts> {
  const user = await services.store.db
    .selectFrom('users')
    .select('name')
    .where('id', '=', session.userId)
    .executeTakeFirstOrThrow();
  return {
    session: session.id,
    user: user.name,
    methods: sessionMethods(session),
    signedInAtMs: session.authenticatedAtMs,
    untilMs: sessionEndMs(session),
    ...(version >= identityVersion ? { provider: session.provider } : {}),
  };
}

/**
 * Refuses a change of what its user signs in with to a session that is old, or weaker than what the user has. Throws
 * ERR_IDENTITY_SIGN_IN_NEEDED (`sign_in_old`, `sign_in_weak`).
 */
export async function refuseWeakSession(
  { clock }: Services,
  db: Reader | Tx,
  session: Session,
): Promise<void> {
  const methods = sessionMethods(session);
  const signedIn = { methods, atMs: session.authenticatedAtMs, hasDevice: true };
  const factors = await readFactors(db, session.userId);
  const reason = whyNotChange(factors, signedIn, clock.nowMs());
  if (reason === undefined) return;
  const hint =
    reason === 'sign_in_old'
      ? 'sign in again, and do it within five minutes: ztna login'
      : 'sign in with all that you have: ztna login';
  throw new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED', { reason, hint, hop: 'client' });
}
