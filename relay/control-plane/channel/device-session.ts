import {
  identityVersion,
  ZtnaError,
  type DeviceId,
  type SessionFacts,
} from '../../../protocol/index.ts';
import { findLiveSession, sessionEndMs, sessionMethods } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Session } from '../store/index.ts';

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
