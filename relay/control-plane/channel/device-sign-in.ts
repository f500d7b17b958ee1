import { ZtnaError, type FromDevice, type SessionFacts } from '../../../protocol/index.ts';
import { revokeSubject } from '../access/end-tunnels.ts';
import { openSession } from '../access/open-session.ts';
import { endSessions, signIn, type Proof } from '../identity/index.ts';
import { leaveProvider, takeLeft } from '../identity/oidc/logout.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
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
  const { store, clock, audit, signInThrottle: throttle } = services;
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
    const proof: Proof = {
      user: user.id,
      provider: 'local',
      methods,
      acr: '',
      authenticatedAtMs: clock.nowMs(),
      grant: null,
    };
    const session = await store.write((tx) =>
      openSession(services, tx, peer.id, proof, peer.address),
    );
    const { address } = peer;
    services.risk.note({ kind: 'sign_in', user: user.id, device: peer.id, app: null, address });
    verifyDevice(services, peer.id);
    return await sessionFactsOf(services, session, peer.version);
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

/**
 * Ends the sessions of the device, and with them their tunnels. Answers where the person ends the session at a provider, where there
 * is such a page.
 */
export async function handleSignOut(services: Services, peer: DevicePeer): Promise<string | null> {
  const { store, clock, audit } = services;
  const left = await store.write(async (tx) => {
    const grant = await takeLeft(services, tx, peer.id);
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
    return grant;
  });
  return left && leaveProvider(services, left);
}
