import { endSessions } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Device, Tx } from '../store/index.ts';
import { closeWhenTold, revokeSubject } from './end-tunnels.ts';

/** Revokes a device for good, with its sessions and tunnels. Answers how many of those ended. */
export async function revokeDevice(
  services: Services,
  tx: Tx,
  row: Pick<Device, 'id'>,
  reason: string,
): Promise<number> {
  await tx.updateTable('devices').set({ state: 'revoked' }).where('id', '=', row.id).execute();
  await endSessions(tx, { deviceId: row.id }, reason, services.clock.nowMs());
  const count = await revokeSubject(services, tx, { kind: 'device', id: row.id }, reason);
  services.store.afterCommit(tx, () => {
    closeWhenTold(services, () => services.peers.devices(row.id));
  });
  return count;
}
