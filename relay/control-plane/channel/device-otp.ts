import { ZtnaError, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import { beginTotp, confirmTotp, hasTotp, removeTotp, useSecondFactor } from '../identity/index.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import type { Session, Tx, User } from '../store/index.ts';
import { needSession, refuseWeakSession } from './device-session.ts';

type OtpRequest = Extract<FromDevice, { type: `otp_${string}` }>;
type Answer<T extends ToDevice['type']> = Extract<ToDevice, { type: T }>;

/**
 * What signed-in users ask about their own one-time passwords; one that is in use is removed only with itself or a
 * recovery code. Throws
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
      return beginOtp(services, peer, id);
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
        await useSecondFactor(tx, user.id, request.otp, Date.now());
        await removeTotp(tx, user.id);
        return false;
      });
  }
}

async function beginOtp(
  services: Services,
  peer: DevicePeer,
  id: number,
): Promise<Answer<'otp_secret'>> {
  const session = await needSession(services, peer.id);
  const uri = await onRecord(services, peer, session, 'otp.begin', async (tx, user) => {
    if (user.provider !== null) {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: `your sign-in methods are kept by ${user.provider}`,
        hint: 'set them up there',
      });
    }
    // Else a password alone, or whoever finds a laptop open, put a second factor of his own beside it.
    if (!(await hasTotp(tx, user.id))) await refuseWeakSession(services, tx, session);
    return beginTotp(tx, user, Date.now());
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
  const { clock, otpThrottle } = services;
  const session = await needSession(services, peer.id);
  if (!otpThrottle.take(session.userId, clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
  const enabled = await onRecord(services, peer, session, action, change);
  return { type: 'otp_state', id, enabled };
}

/** Makes a change for the session's user, with its audit record in the same transaction. */
function onRecord<T>(
  { store, audit }: Services,
  peer: DevicePeer,
  session: Pick<Session, 'userId'>,
  action: string,
  change: (tx: Tx, user: User) => Promise<T>,
): Promise<T> {
  return store.write(async (tx) => {
    const user = await tx
      .selectFrom('users')
      .selectAll()
      .where('id', '=', session.userId)
      .executeTakeFirstOrThrow();
    const result = await change(tx, user);
    const actor = `device:${peer.id}`;
    await audit.append({ actor, action, subject: user.id, outcome: 'ok', user: user.name }, tx);
    return result;
  });
}
