import { ZtnaError, type DeviceId, type SessionId } from '../../../protocol/index.ts';
import { startSession, type Proof, type SessionLimits } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Session, Tx, User } from '../store/index.ts';
import { endTunnels } from './end-tunnels.ts';
import { suspendSession } from './suspend-tunnels.ts';

/** A provider is asked again no later than this after a sign-in; its own settings say how often from then on. */
const firstCheckMs = 60_000;

/**
 * Opens a session for who proved to be the device's user, and puts that on record. Tunnels of the session before are held until
 * they are decided on anew. Throws ERR_IDENTITY_SIGN_IN_REFUSED: `device_not_of_user` (another's proof is no better than
 * none), `user_not_active`, `provider_other`; ERR_IDENTITY_DEVICE_PENDING.
 */
export async function openSession(
  services: Services,
  tx: Tx,
  device: DeviceId,
  proof: Proof,
  address: string,
  limits: SessionLimits = services.settings.session,
): Promise<Session> {
  const { clock, audit, sealer } = services;
  const nowMs = clock.nowMs();
  const row = await tx
    .selectFrom('devices')
    .select(['userId', 'state'])
    .where('id', '=', device)
    .executeTakeFirst();
  if (row?.userId === proof.user && row.state === 'pending') {
    throw new ZtnaError('ERR_IDENTITY_DEVICE_PENDING', { reason: 'device_pending' });
  }
  if (row?.userId !== proof.user || row.state !== 'enrolled') {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'device_not_of_user' });
  }
  const user = await tx
    .selectFrom('users')
    .selectAll()
    .where('id', '=', proof.user)
    .executeTakeFirstOrThrow();
  if (user.disabled === 1 || (user.expiresAtMs !== null && user.expiresAtMs <= nowMs)) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'user_not_active' });
  }
  const { provider, methods, acr, authenticatedAtMs, grant } = proof;
  if (!(await isOwnWay(tx, user, provider))) {
    throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'provider_other' });
  }
  const { session, replaced } = await startSession(tx, {
    userId: user.id,
    deviceId: device,
    provider,
    methods,
    acr,
    authenticatedAtMs,
    address,
    limits,
    notAfterMs: user.expiresAtMs,
    nowMs,
  });
  if (grant) {
    await tx
      .insertInto('providerGrants')
      .values({
        sessionId: session.id,
        userId: user.id,
        provider,
        subject: grant.subject,
        sid: grant.sid,
        sealedTokens: sealer.seal(
          JSON.stringify({ refreshToken: grant.refreshToken, idToken: grant.idToken }),
          `tokens ${session.id}`,
        ),
        nextCheckAtMs: nowMs + Math.min(firstCheckMs, grant.recheckMs),
        lastOkAtMs: nowMs,
        lastError: null,
        unreachableSinceMs: null,
      })
      .execute();
  }
  for (const one of replaced) await holdUntilDecided(services, tx, one);
  await audit.append(
    {
      actor: `device:${device}`,
      action: 'session.sign_in',
      subject: session.id,
      outcome: 'ok',
      user: user.name,
      details: {
        methods,
        address,
        ...(provider === 'local' ? {} : { provider }),
        ...(acr === '' ? {} : { acr }),
      },
    },
    tx,
  );
  return session;
}

/** What proved it some minutes ago may be the user's way to sign in no more: linked elsewhere, or its provider removed. */
async function isOwnWay(tx: Tx, user: User, provider: string): Promise<boolean> {
  if (user.kind === 'service') return provider === 'service';
  if (user.provider === null) return provider === 'local';
  if (user.provider !== provider) return false;
  const known = await tx
    .selectFrom('providers')
    .select('name')
    .where('name', '=', provider)
    .executeTakeFirst();
  return known !== undefined;
}

/** Tunnels of the session before go on under the new one as soon as they are decided on with it. */
async function holdUntilDecided(services: Services, tx: Tx, session: SessionId): Promise<void> {
  const reason = 'signed_in_again';
  const by = { reason, fix: 'nothing to do: it goes on in a moment' };
  const others = await suspendSession(services, tx, session, by);
  await endTunnels(services, tx, others, { reason, code: 'ERR_TUNNEL_REVOKED' });
}
