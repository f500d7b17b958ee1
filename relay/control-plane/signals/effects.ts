import { revokeSubject } from '../access/end-tunnels.ts';
import { cutOff, disableUser } from '../access/cut-off.ts';
import { endSessions, sessionMethods } from '../identity/index.ts';
import { knowTunnels } from '../live/replica.ts';
import { reevaluate } from '../verification/reevaluate.ts';
import type { Services } from '../services.ts';
import type { Device, Session, Tx, User } from '../store/index.ts';

/** Whom an effect is about: the narrowest that its subject named. */
export type EffectTarget =
  | { readonly kind: 'user'; readonly row: User }
  | { readonly kind: 'device'; readonly row: Device }
  | { readonly kind: 'session'; readonly row: Session };

/**
 * How events are carried out, each in the transaction that notes its token. What they answer is how many tunnels
 * ended or were suspended. Nothing here gives anything but `setRestriction` taking back what the same stream had imposed.
 */
export interface SignalEffects {
  /** Sessions end and their tunnels close; signing in anew is allowed. */
  endSessions(tx: Tx, on: EffectTarget, reason: string): Promise<number>;
  /** Sessions end; what becomes of tunnels follows from what policy says then. */
  requireSignIn(tx: Tx, on: EffectTarget, reason: string): Promise<number>;
  /** The second factor of live sessions counts no more. */
  requireStepUp(tx: Tx, on: EffectTarget, reason: string): Promise<number>;
  setRestriction(tx: Tx, device: Device, stream: string, isRestricted: boolean): Promise<number>;
  /** What the streams say of the target's risk has changed. */
  reviewRisk(tx: Tx, on: EffectTarget): Promise<number>;
  disableUser(tx: Tx, user: User, reason: string): Promise<number>;
}

/** Methods of a sign-in that count as a second factor. */
const secondFactors: readonly string[] = ['totp'];

export function createSignalEffects(services: Services): SignalEffects {
  const { store, clock, peers } = services;

  const review = async (tx: Tx, on: EffectTarget, reason: string): Promise<number> => {
    const tunnels = await knowTunnels(services, tx, on.kind, on.row.id);
    const { ended, suspended } = await reevaluate(services, tx, tunnels, reason);
    return ended + suspended;
  };

  const liveSessions = async (tx: Tx, on: EffectTarget): Promise<Session[]> => {
    const sessions = tx.selectFrom('sessions').selectAll().where('endedAtMs', 'is', null);
    if (on.kind === 'session') return sessions.where('id', '=', on.row.id).execute();
    if (on.kind === 'device') return sessions.where('deviceId', '=', on.row.id).execute();
    return sessions.where('userId', '=', on.row.id).execute();
  };

  const tellEnded = (tx: Tx, ended: readonly Session[], reason: string): void => {
    store.afterCommit(tx, () => {
      for (const { deviceId } of ended) {
        for (const peer of peers.devices(deviceId)) peer.send({ type: 'session_ended', reason });
      }
    });
  };

  const end = async (tx: Tx, on: EffectTarget, reason: string): Promise<void> => {
    const ended = await liveSessions(tx, on);
    for (const { id } of ended) await endSessions(tx, { id }, reason, clock.nowMs());
    tellEnded(tx, ended, reason);
  };

  return {
    async endSessions(tx, on, reason) {
      if (on.kind === 'user') return cutOff(services, tx, on.row, reason);
      await end(tx, on, reason);
      const subject =
        on.kind === 'device'
          ? ({ kind: 'device', id: on.row.id } as const)
          : ({ kind: 'session', id: on.row.id } as const);
      return revokeSubject(services, tx, subject, reason);
    },

    async requireSignIn(tx, on, reason) {
      await end(tx, on, reason);
      return review(tx, on, reason);
    },

    async requireStepUp(tx, on, reason) {
      for (const session of await liveSessions(tx, on)) {
        const methods = sessionMethods(session);
        const left = methods.filter((method) => !secondFactors.includes(method));
        if (left.length === methods.length) continue;
        const methodsJson = JSON.stringify(left);
        await tx
          .updateTable('sessions')
          .set({ methodsJson })
          .where('id', '=', session.id)
          .execute();
      }
      return review(tx, on, reason);
    },

    async setRestriction(tx, device, stream, isRestricted) {
      const { restrictedJson } = await tx
        .selectFrom('devices')
        .select('restrictedJson')
        .where('id', '=', device.id)
        .executeTakeFirstOrThrow();
      const streams = new Set(JSON.parse(restrictedJson) as string[]);
      if (isRestricted) streams.add(stream);
      else streams.delete(stream);
      await tx
        .updateTable('devices')
        .set({ restrictedJson: JSON.stringify([...streams].sort()) })
        .where('id', '=', device.id)
        .execute();
      return review(tx, { kind: 'device', row: device }, 'device_restricted');
    },

    reviewRisk: (tx, on) => review(tx, on, 'risk_changed'),

    async disableUser(tx, user, reason) {
      return disableUser(services, tx, user, 'signals', reason);
    },
  };
}
