import {
  ZtnaError,
  type FromDevice,
  type SessionFacts,
  type SessionId,
} from '../../../protocol/index.ts';
import { endTunnels, revokeSubject } from '../access/end-tunnels.ts';
import { suspendSession } from '../access/suspend-tunnels.ts';
import { endSessions, signIn, startSession } from '../identity/index.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';
import { verifyDevice } from './device-posture.ts';
import { sessionFactsOf } from './device-session.ts';

/**
 * Signs the device's user in, by password and where needed one-time password. Tunnels of the session before are held
 * until they are decided on anew; a refusal is put on record. Throws what `signIn` throws, and
 * ERR_IDENTITY_SIGN_IN_REFUSED (`device_not_of_user`) for another's password.
 */
export async function handleSignIn(
  services: Services,
  peer: DevicePeer,
  request: Extract<FromDevice, { type: 'sign_in' }>,
): Promise<SessionFacts> {
  const { store, clock, audit, settings, signInThrottle: throttle } = services;
  const actor = `device:${peer.id}`;
  try {
    const owner = await store.db
      .selectFrom('devices')
      .select('userId')
      .where('id', '=', peer.id)
      .executeTakeFirst();
    const { user, methods } = await signIn(
      { store, throttle, clock },
      { ...request, device: peer.id, owner: owner?.userId ?? null, address: peer.address },
    );
    const session = await store.write(async (tx) => {
      const device = await tx
        .selectFrom('devices')
        .select(['userId', 'state'])
        .where('id', '=', peer.id)
        .executeTakeFirst();
      // A device is its user's own: another's password on it is no better than a wrong one.
      if (device?.userId !== user.id || device.state !== 'enrolled') {
        throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { reason: 'device_not_of_user' });
      }
      const started = await startSession(tx, {
        userId: user.id,
        deviceId: peer.id,
        provider: 'local',
        methods,
        limits: settings.session,
        notAfterMs: user.expiresAtMs,
        nowMs: clock.nowMs(),
      });
      for (const replaced of started.replaced) {
        await holdUntilDecided(services, tx, replaced);
      }
      await audit.append(
        {
          actor,
          action: 'session.sign_in',
          subject: started.session.id,
          outcome: 'ok',
          user: user.name,
          details: { methods, address: peer.address },
        },
        tx,
      );
      return started.session;
    });
    const { address } = peer;
    services.risk.note({ kind: 'sign_in', user: user.id, device: peer.id, app: null, address });
    verifyDevice(services, peer.id);
    return await sessionFactsOf(services, session);
  } catch (error) {
    if (error instanceof ZtnaError) {
      await noteRefusedSignIn(services, peer, request.user, error);
      await audit.append({
        actor,
        action: 'session.sign_in',
        subject: peer.id,
        outcome: 'refused',
        user: request.user,
        details: { code: error.code, reason: error.reason ?? null, address: peer.address },
      });
    }
    throw error;
  }
}

/** To be asked for a one-time password is a step of signing in, and nobody's behaviour. */
async function noteRefusedSignIn(
  { store, risk }: Services,
  { id, address }: DevicePeer,
  name: string,
  { code }: ZtnaError,
): Promise<void> {
  if (code === 'ERR_IDENTITY_OTP_NEEDED') return;
  const user = await store.db
    .selectFrom('users')
    .select('id')
    .where('name', '=', name)
    .executeTakeFirst();
  if (user) risk.note({ kind: 'sign_in_refused', user: user.id, device: id, app: null, address });
}

/** Tunnels of the session before go on under the new one as soon as they are decided on with it. */
async function holdUntilDecided(services: Services, tx: Tx, session: SessionId): Promise<void> {
  const reason = 'signed_in_again';
  const by = { reason, fix: 'nothing to do: it goes on in a moment' };
  const others = await suspendSession(services, tx, session, by);
  await endTunnels(services, tx, others, { reason, code: 'ERR_TUNNEL_REVOKED' });
}

/** Ends the sessions of the device, and with them their tunnels. */
export async function handleSignOut(services: Services, peer: DevicePeer): Promise<void> {
  const { store, clock, audit } = services;
  await store.write(async (tx) => {
    const ended = await endSessions(tx, { deviceId: peer.id }, 'signed_out', clock.nowMs());
    for (const session of ended) {
      await revokeSubject(services, tx, { kind: 'session', id: session }, 'signed_out');
      await audit.append(
        {
          actor: `device:${peer.id}`,
          action: 'session.sign_out',
          subject: session,
          outcome: 'ok',
        },
        tx,
      );
    }
  });
}
