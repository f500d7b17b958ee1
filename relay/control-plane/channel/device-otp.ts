import { ZtnaError, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import { beginTotp, confirmTotp, hasTotp, removeTotp, useTotp } from '../identity/index.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import type { Tx, User } from '../store/index.ts';
import { needSession } from './device-session.ts';

type OtpRequest = Extract<FromDevice, { type: `otp_${string}` }>;
type Answer<T extends ToDevice['type']> = Extract<ToDevice, { type: T }>;

/**
 * What signed-in users ask about their own one-time passwords; one that is in use is removed only with itself. Throws
 * ERR_IDENTITY_SIGN_IN_NEEDED, ERR_LIMIT_RATE for changes, and what the one-time password itself is refused with.
 */
export async function answerOtp(
  services: Services,
  peer: DevicePeer,
  request: OtpRequest,
): Promise<Answer<'otp_secret' | 'otp_state'>> {
  const { id } = request;
  switch (request.type) {
    case 'otp_begin':
      return handleOtpBegin(services, peer, id);
    case 'otp_confirm':
      return changeOtp(services, peer, id, 'otp.confirm', async (tx, user) => {
        await confirmTotp(tx, user.id, request.otp, Date.now());
        return true;
      });
    case 'otp_list': {
      const session = await needSession(services, peer.id);
      return { type: 'otp_state', id, enabled: await hasTotp(services.store.db, session.userId) };
    }
    case 'otp_remove':
      return changeOtp(services, peer, id, 'otp.remove', async (tx, user) => {
        await useTotp(tx, user.id, request.otp, Date.now());
        await removeTotp(tx, user.id);
        return false;
      });
  }
}

async function handleOtpBegin(
  services: Services,
  peer: DevicePeer,
  id: number,
): Promise<Answer<'otp_secret'>> {
  const { store, audit } = services;
  const session = await needSession(services, peer.id);
  const uri = await store.write(async (tx) => {
    const user = await tx
      .selectFrom('users')
      .selectAll()
      .where('id', '=', session.userId)
      .executeTakeFirstOrThrow();
    const secret = await beginTotp(tx, user, Date.now());
    await audit.append(
      {
        actor: `device:${peer.id}`,
        action: 'otp.begin',
        subject: user.id,
        outcome: 'ok',
        user: user.name,
      },
      tx,
    );
    return secret;
  });
  return { type: 'otp_secret', id, uri };
}

/** Makes a change that answers whether one-time passwords are asked for from then on. */
async function changeOtp(
  services: Services,
  peer: DevicePeer,
  id: number,
  action: string,
  change: (tx: Tx, user: User) => Promise<boolean>,
): Promise<Answer<'otp_state'>> {
  const { store, audit, clock, otpThrottle } = services;
  const session = await needSession(services, peer.id);
  if (!otpThrottle.take(session.userId, clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
  const enabled = await store.write(async (tx) => {
    const user = await tx
      .selectFrom('users')
      .selectAll()
      .where('id', '=', session.userId)
      .executeTakeFirstOrThrow();
    const result = await change(tx, user);
    await audit.append(
      {
        actor: `device:${peer.id}`,
        action,
        subject: user.id,
        outcome: 'ok',
        user: user.name,
      },
      tx,
    );
    return result;
  });
  return { type: 'otp_state', id, enabled };
}
