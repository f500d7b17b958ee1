import { endSessions } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Tx, User } from '../store/index.ts';
import { closeWhenTold, revokeSubject } from './end-tunnels.ts';

/** Who may want a user disabled: each of them enables only what it disabled itself. */
export type Disabler = 'admin' | 'signals' | 'scim';

/** Ends every session and tunnel of a user, at once and everywhere. Answers how many tunnels. */
export async function cutOff(
  services: Services,
  tx: Tx,
  user: User,
  reason: string,
): Promise<number> {
  await endSessions(tx, { userId: user.id }, reason, services.clock.nowMs());
  const count = await revokeSubject(services, tx, { kind: 'user', id: user.id }, reason);
  const devices = await tx
    .selectFrom('devices')
    .select('id')
    .where('userId', '=', user.id)
    .execute();
  services.store.afterCommit(tx, () => {
    for (const { id } of devices) {
      for (const peer of services.peers.devices(id)) peer.send({ type: 'session_ended', reason });
    }
  });
  return count;
}

/** Cuts a user off until everybody who disabled it has enabled it again. Answers how many tunnels ended. */
export async function disableUser(
  services: Services,
  tx: Tx,
  user: User,
  by: Disabler,
  reason = 'user_disabled',
): Promise<number> {
  const tunnelsEnded = await cutOff(services, tx, user, reason);
  await noteDisablers(tx, user, [...(await disablersNow(services, tx, user)), by]);
  return tunnelsEnded;
}

/** Takes back what these wanted. Answers who wants the user disabled still. */
export async function enableUser(
  services: Services,
  tx: Tx,
  user: User,
  ...by: readonly Disabler[]
): Promise<Disabler[]> {
  const left = (await disablersNow(services, tx, user)).filter((one) => !by.includes(one));
  await noteDisablers(tx, user, left);
  return left;
}

/** Who wants a user disabled. */
export function disablersOf(user: User): Disabler[] {
  const noted = JSON.parse(user.disabledByJson) as Disabler[];
  // Disabled before anybody was noted.
  return user.disabled === 1 && noted.length === 0 ? ['admin'] : noted;
}

/** Who wants it disabled by what is stored, which nobody else changes until `tx` ends. */
async function disablersNow({ store }: Services, tx: Tx, user: User): Promise<Disabler[]> {
  const stored = tx.selectFrom('users').selectAll().where('id', '=', user.id);
  const isShared = store.engine === 'postgresql'; // else one transaction runs at a time
  const row = await (isShared ? stored.forUpdate() : stored).executeTakeFirst();
  return disablersOf(row ?? user);
}

async function noteDisablers(tx: Tx, user: User, by: readonly Disabler[]): Promise<void> {
  await tx
    .updateTable('users')
    .set({
      disabled: by.length > 0 ? 1 : 0,
      disabledByJson: JSON.stringify([...new Set(by)].sort()),
    })
    .where('id', '=', user.id)
    .execute();
}

/** Removes a user for good, with devices, sessions and invitations. Answers how many tunnels ended. */
export async function removeUser(services: Services, tx: Tx, user: User): Promise<number> {
  const tunnelsEnded = await cutOff(services, tx, user, 'user_removed');
  await tx.deleteFrom('sessions').where('userId', '=', user.id).execute();
  const devices = await tx
    .deleteFrom('devices')
    .where('userId', '=', user.id)
    .returning('id')
    .execute();
  services.store.afterCommit(tx, () => {
    closeWhenTold(services, () => devices.flatMap(({ id }) => services.peers.devices(id)));
  });
  await tx
    .deleteFrom('invites')
    .where('kind', '=', 'user')
    .where('subject', '=', user.id)
    .execute();
  await tx.deleteFrom('users').where('id', '=', user.id).execute();
  return tunnelsEnded;
}
