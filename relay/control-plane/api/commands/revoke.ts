import * as v from 'valibot';
import { ZtnaError, type Subject } from '../../../../protocol/index.ts';
import { cutOff } from '../../access/cut-off.ts';
import { revokeSubject } from '../../access/end-tunnels.ts';
import { revokeDevice } from '../../access/revoke-device.ts';
import { endSessions } from '../../identity/index.ts';
import { defineCommand, type Command } from '../command.ts';
import { getConnector, getDevice, getSession, getTunnel, getUser } from '../lookup.ts';
import { removeConnector } from './object.ts';
import { word } from './schema.ts';
import type { Services } from '../../services.ts';
import type { Tx } from '../../store/index.ts';

const args = v.strictObject({
  kind: v.picklist(['user', 'session', 'device', 'connector', 'tunnel']),
  id: word,
  reason: v.pipe(v.string(), v.minLength(1), v.maxLength(500)),
});

/** What users, logs and enforcers are told: the administrator's own word, if it is one; whole texts stay in the audit. */
function reasonOf(text: string): string {
  return /^[a-z][a-z0-9_]{0,63}$/.test(text) ? text : 'revoked_by_admin';
}

interface Revoked {
  readonly subject: Exclude<Subject, { kind: 'app' }>;
  readonly user: string | null;
  readonly tunnelsEnded: number;
}

async function revoke(
  services: Services,
  tx: Tx,
  { kind, id, reason: text }: v.InferOutput<typeof args>,
): Promise<Revoked> {
  const reason = reasonOf(text);
  switch (kind) {
    case 'user': {
      const user = await getUser(tx, id);
      const tunnelsEnded = await cutOff(services, tx, user, reason);
      return { subject: { kind, id: user.id }, user: user.name, tunnelsEnded };
    }
    case 'session': {
      const session = await getSession(tx, id);
      if (session.endedAtMs !== null) {
        throw new ZtnaError('ERR_CONFIG_USAGE', {
          message: `session ${session.id} has ended already`,
        });
      }
      await endSessions(tx, { id: session.id }, reason, services.clock.nowMs());
      const subject = { kind, id: session.id };
      const tunnelsEnded = await revokeSubject(services, tx, subject, reason);
      services.store.afterCommit(tx, () => {
        for (const peer of services.peers.devices(session.deviceId)) {
          peer.send({ type: 'session_ended', reason });
        }
      });
      return { subject, user: null, tunnelsEnded };
    }
    case 'device': {
      const device = await getDevice(tx, id);
      const tunnelsEnded = await revokeDevice(services, tx, device, reason);
      return { subject: { kind, id: device.id }, user: null, tunnelsEnded };
    }
    case 'connector': {
      const connector = await getConnector(tx, id);
      const tunnelsEnded = await removeConnector(services, tx, connector, reason);
      return { subject: { kind, id: connector.id }, user: null, tunnelsEnded };
    }
    case 'tunnel': {
      const tunnel = await getTunnel(tx, id);
      const subject = { kind, id: tunnel.id };
      return {
        subject,
        user: null,
        tunnelsEnded: await revokeSubject(services, tx, subject, reason),
      };
    }
  }
}

export const revokeCommands: readonly Command[] = [
  defineCommand('revoke', 'change', args, async (services, request, actor) =>
    services.store.write(async (tx) => {
      const { kind, reason: text } = request;
      const { subject, user, tunnelsEnded } = await revoke(services, tx, request);
      await services.audit.append(
        {
          actor,
          action: `${kind}.revoke`,
          subject: subject.id,
          outcome: 'ok',
          user,
          details: { reason: text, tunnelsEnded },
        },
        tx,
      );
      return { kind, id: subject.id, tunnelsEnded };
    }),
  ),
];
