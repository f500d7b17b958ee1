import { ZtnaError, type FromDevice, type ToDevice } from '../../../protocol/index.ts';
import { listOwnDevices, revokeOwnDevice } from '../access/own-devices.ts';
import {
  hasTotp,
  makeRecoveryCodes,
  readFactors,
  removePasskey,
  sealDeviceWord,
  useSecondFactor,
} from '../identity/index.ts';
import type { DevicePeer } from '../live/peers.ts';
import type { Services } from '../services.ts';
import type { Session, Tx, User } from '../store/index.ts';
import { needSession, refuseWeakSession } from './device-session.ts';

type Request = Extract<
  FromDevice,
  { type: 'devices' | 'device_revoke' | 'factors' | 'recovery_begin' | 'passkey_remove' }
>;
type Answer<T extends ToDevice['type']> = Extract<ToDevice, { type: T }>;

/**
 * What signed-in users ask about their own devices and sign-in methods. Throws ERR_IDENTITY_SIGN_IN_NEEDED (also where a fresh
 * sign-in is needed), ERR_IDENTITY_SIGN_IN_REFUSED for a wrong one-time password, ERR_CONFIG_NOT_FOUND for what is not theirs,
 * ERR_LIMIT_RATE.
 */
export async function answerOwn(
  services: Services,
  peer: DevicePeer,
  request: Request,
): Promise<ToDevice> {
  const { id } = request;
  const session = await needSession(services, peer.id);
  switch (request.type) {
    case 'devices':
      return tellDevices(services, peer, session, id);
    case 'device_revoke': {
      const actor = `device:${peer.id}`;
      await revokeOwnDevice(services, { user: session.userId, device: request.device, actor });
      // Everybody is told before the answer; but a device that ends itself would then not hear it.
      if (request.device !== peer.id) await services.feed.wake();
      return { type: 'done', id };
    }
    case 'factors':
      return tellFactors(services, session, id);
    case 'recovery_begin':
      return beginRecovery(services, peer, session, request);
    case 'passkey_remove':
      return removeOwnPasskey(services, peer, session, request);
  }
}

async function tellDevices(
  services: Services,
  peer: DevicePeer,
  { userId }: Session,
  id: number,
): Promise<Answer<'devices'>> {
  const devices = await listOwnDevices(services, userId);
  return {
    type: 'devices',
    id,
    devices: devices.map((row) => ({
      device: row.id,
      hostname: row.hostname,
      platform: row.platform,
      state: row.state,
      isThis: row.id === peer.id,
      isOnline: row.isOnline,
      enrolledAtMs: row.createdAtMs,
      lastSeenAtMs: row.lastSeenAtMs,
    })),
  };
}

async function tellFactors(
  { store, settings, sealer, clock }: Services,
  { userId }: Session,
  id: number,
): Promise<Answer<'factors'>> {
  const accountUrl = new URL('/account', settings.url);
  accountUrl.searchParams.set('device', sealDeviceWord(sealer, userId, clock.nowMs()));
  const { otp, recoveryCodesLeft, passkeys } = await readFactors(store.db, userId);
  return {
    type: 'factors',
    id,
    otp,
    recoveryCodesLeft,
    passkeys: passkeys.map((row) => ({
      passkey: row.id,
      name: row.name,
      addedAtMs: row.createdAtMs,
      lastUsedAtMs: row.lastUsedAtMs,
    })),
    accountUrl: accountUrl.href,
  };
}

async function beginRecovery(
  services: Services,
  peer: DevicePeer,
  session: Session,
  { id, otp }: Extract<Request, { type: 'recovery_begin' }>,
): Promise<Answer<'recovery_codes'>> {
  const { store, clock, otpThrottle } = services;
  if (!(await hasTotp(store.db, session.userId))) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
      message: 'one-time passwords are not set up, so nothing stands in for them',
      hint: 'set them up first: ztna mfa add',
    });
  }
  if (!otpThrottle.take(session.userId, clock.nowMs())) throw new ZtnaError('ERR_LIMIT_RATE');
  const codes = await onRecord(services, peer, session, 'recovery.make', async (tx, user) => {
    await useSecondFactor(tx, user.id, otp, Date.now());
    return makeRecoveryCodes(tx, user.id, clock.nowMs());
  });
  return { type: 'recovery_codes', id, codes: [...codes] };
}

async function removeOwnPasskey(
  services: Services,
  peer: DevicePeer,
  session: Session,
  { id, passkey }: Extract<Request, { type: 'passkey_remove' }>,
): Promise<Answer<'done'>> {
  await refuseWeakSession(services, services.store.db, session);
  await onRecord(services, peer, session, 'passkey.remove', async (tx, user) => {
    if (await removePasskey(tx, user.id, passkey)) return;
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: 'you have no such passkey' });
  });
  return { type: 'done', id };
}

/** Makes a change for the session's user, with its audit record in the same transaction. */
function onRecord<T>(
  { store, audit }: Services,
  peer: DevicePeer,
  session: Session,
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
