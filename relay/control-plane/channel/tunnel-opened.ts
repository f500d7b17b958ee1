import { toZtnaError, type TunnelId } from '../../../protocol/index.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import { dropTunnel } from './tunnel-reports.ts';

/** A tunnel that was granted is open, and on record as such once. */
export async function noteOpened(services: Services, id: TunnelId): Promise<void> {
  const { store, clock, audit, tunnels } = services;
  const tunnel = tunnels.get(id);
  if (tunnel?.state !== 'granted') return;
  tunnel.state = 'open';
  tunnel.pathGeneration = 1;
  try {
    await store.write(
      async (tx) => {
        const opened = await tx
          .updateTable('tunnels')
          .set({ state: 'open', openedAtMs: clock.nowMs() })
          .where('id', '=', id)
          .where('state', '=', 'granted')
          .returning('id')
          .executeTakeFirst();
        if (!opened) return; // another control plane was told before
        store.announce(tx, 'tunnels');
        await audit.append(
          {
            actor: `connector:${tunnel.connector}`,
            action: 'tunnel.open',
            subject: id,
            outcome: 'ok',
            ref: tunnel.decision,
            user: tunnel.userName,
            app: tunnel.appName,
          },
          tx,
        );
      },
      { apart: id },
    );
  } catch (error) {
    services.logger.error('tunnel_open_not_recorded', { code: toZtnaError(error).code });
  }
}

/** Its agent gave the grant up and used it all the same, or it was lost on the way: no tunnel runs unrecorded. */
export async function refuseOpened(services: Services, tunnel: LiveTunnel): Promise<void> {
  const { store, audit, reportThrottle, clock } = services;
  if (!reportThrottle.take(tunnel.connector, clock.nowMs())) return; // its lease ends it
  await store.write(async (tx) => {
    await dropTunnel(services, tx, tunnel.id);
    await audit.append(
      {
        actor: `connector:${tunnel.connector}`,
        action: 'tunnel.open',
        subject: tunnel.id,
        outcome: 'refused',
        ref: tunnel.decision,
        user: tunnel.userName,
        app: tunnel.appName,
        details: { reason: 'tunnel_closed' },
      },
      tx,
    );
  });
}
