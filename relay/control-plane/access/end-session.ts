import type { SessionId } from '../../../protocol/index.ts';
import { endSessions } from '../identity/index.ts';
import type { Services } from '../services.ts';
import type { Tx } from '../store/index.ts';
import { endTunnels, revokeSubject } from './end-tunnels.ts';
import { suspendSession } from './suspend-tunnels.ts';

/**
 * Ends one session that is not over, on record. Its tunnels end, or where a new sign-in is all that it takes they are held for it.
 * Answers whether there was one to end.
 */
export async function endSession(
  services: Services,
  tx: Tx,
  session: SessionId,
  {
    reason,
    actor,
    isMendedBySignIn,
  }: { readonly reason: string; readonly actor: string; readonly isMendedBySignIn: boolean },
): Promise<boolean> {
  const { store, clock, audit, peers } = services;
  const [ended] = await endSessions(tx, { id: session }, reason, clock.nowMs());
  if (ended === undefined) return false;
  const row = await tx
    .selectFrom('sessions')
    .innerJoin('users', 'users.id', 'sessions.userId')
    .select(['sessions.deviceId', 'users.name'])
    .where('sessions.id', '=', session)
    .executeTakeFirstOrThrow();
  if (isMendedBySignIn) await holdSession(services, tx, session, reason);
  else await revokeSubject(services, tx, { kind: 'session', id: session }, reason);
  await audit.append(
    {
      ...{ actor, action: 'session.end', subject: session, outcome: 'ok' },
      user: row.name,
      details: { reason },
    },
    tx,
  );
  store.afterCommit(tx, () => {
    for (const peer of peers.devices(row.deviceId)) peer.send({ type: 'session_ended', reason });
  });
  return true;
}

/** A new sign-in mends a session that has ended so: tunnels that can wait for it do. */
export async function holdSession(
  services: Services,
  tx: Tx,
  session: SessionId,
  reason: string,
): Promise<void> {
  const by = { reason: 'sign_in_needed', fix: 'sign in again: ztna login' };
  const others = await suspendSession(services, tx, session, by);
  await endTunnels(services, tx, others, { reason, code: 'ERR_TUNNEL_REVOKED' });
}
