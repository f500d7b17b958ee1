import { ZtnaError, type UserId } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import type { Device } from '../store/index.ts';
import { revokeDevice } from './revoke-device.ts';

/** Devices told at once; a user has far fewer unless an administrator allows it. */
const maxTold = 64;

/** The user's devices that are not revoked, the newest first, each with whether it has a channel here. */
export async function listOwnDevices(
  { store, peers }: Pick<Services, 'store' | 'peers'>,
  user: UserId,
): Promise<(Device & { readonly isOnline: boolean })[]> {
  const rows = await store.db
    .selectFrom('devices')
    .selectAll()
    .where('userId', '=', user)
    .where('state', '!=', 'revoked')
    .orderBy('createdAtMs', 'desc')
    .limit(maxTold)
    .execute();
  return rows.map((row) => ({ ...row, isOnline: peers.devices(row.id).length > 0 }));
}

/**
 * Revokes a device of the user's own for good, on record. Throws ERR_CONFIG_NOT_FOUND for any other, whether or not there is
 * such a one.
 */
export async function revokeOwnDevice(
  services: Services,
  {
    user,
    device,
    actor,
  }: { readonly user: UserId; readonly device: string; readonly actor: string },
): Promise<void> {
  const { store, audit } = services;
  await store.write(async (tx) => {
    const row = await tx
      .selectFrom('devices')
      .innerJoin('users', 'users.id', 'devices.userId')
      .select(['devices.id', 'hostname', 'users.name as userName'])
      .where('devices.id', '=', device as Device['id'])
      .where('userId', '=', user)
      .where('state', '!=', 'revoked')
      .executeTakeFirst();
    if (!row) {
      throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: 'you have no such device' });
    }
    const tunnelsEnded = await revokeDevice(services, tx, row, 'revoked_by_owner');
    const { hostname, userName } = row;
    await audit.append(
      {
        actor,
        action: 'device.revoke',
        subject: row.id,
        outcome: 'ok',
        user: userName,
        details: { reason: 'revoked_by_owner', hostname, tunnelsEnded },
      },
      tx,
    );
  });
}
