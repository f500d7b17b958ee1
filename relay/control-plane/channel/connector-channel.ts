import type { WebSocket } from 'ws';
import {
  fromConnector,
  toConnector,
  ZtnaError,
  type ConnectorId,
  type FromConnector,
  type ToConnector,
  type TunnelId,
} from '../../../protocol/index.ts';
import { endTunnels } from '../access/end-tunnels.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import { forgetLink } from '../live/ownership.ts';
import type { ConnectorPeer } from '../live/peers.ts';
import { lookUp } from '../live/replica.ts';
import type { LiveTunnel } from '../live/tunnel-index.ts';
import type { Services } from '../services.ts';
import { closeAtCertificateEnd } from './certificate-end.ts';
import { answerTime } from './common.ts';
import { greetConnector } from './connector-greeting.ts';
import { ServerChannel } from './server-channel.ts';
import { noteOpened, refuseOpened } from './tunnel-opened.ts';
import { noteByteCounts, noteBytes, noteDetached, noteResumed } from './tunnel-reports.ts';

/** A connector that comes back with every tunnel it may carry names them all in its hello. */
export const maxConnectorMessageBytes = 262_144;

/** Serves one connector's control channel until it closes. */
export function serveConnector(services: Services, socket: WebSocket, dialler: ControlPeer): void {
  const id = dialler.id as ConnectorId;
  const logger = services.logger.child({ connector: id });
  let peer: ConnectorPeer | undefined;
  const channel = new ServerChannel<FromConnector, ToConnector>(socket, {
    from: fromConnector,
    to: toConnector,
    maxMessageBytes: maxConnectorMessageBytes,
    // One that comes back tells of each of its tunnels at once.
    messagesPerSecond: 2_500,
    logger,
    answerTime: (nonce) => answerTime(services, nonce),
    onMessage: async (message) => {
      if (message.type === 'hello') {
        await greetConnector(services, channel, dialler, message, (registered) => {
          peer = registered;
        });
        logger.info('connector_online', { instance: message.instance, apps: message.apps.length });
      } else if (peer) await handle(services, peer, message);
    },
    laneOf: (message) => ('tunnel' in message ? message.tunnel : undefined),
  });
  const certificateTimer = closeAtCertificateEnd(dialler, () => {
    // Its holder has a newer one by now and dials again with it.
    channel.close(new ZtnaError('ERR_RELAY_UNAVAILABLE'));
  });
  void channel.closed.then((how) => {
    clearTimeout(certificateTimer);
    if (!peer || !services.peers.removeConnector(peer)) return;
    logger.info('connector_offline', { how });
    services.absences.leave(peer.id, services.clock.nowMs(), how);
    // What cannot be written down ends with our own lease.
    forgetLink(services, peer.id, peer.instance).catch(() => undefined);
  });
}

async function handle(
  services: Services,
  peer: ConnectorPeer,
  message: Exclude<FromConnector, { type: 'hello' }>,
): Promise<void> {
  const { tunnels, schedule, clock } = services;
  switch (message.type) {
    case 'apps':
      peer.apps = new Set(message.apps);
      return;
    case 'tunnel_opened': {
      const tunnel = await lookUp(services, message.tunnel);
      if (tunnel?.connector !== peer.id) return;
      if (tunnel.state === 'closed') {
        await refuseOpened(services, tunnel);
        return;
      }
      await noteOpened(services, message.tunnel);
      schedule.hasten(message.tunnel, clock.nowMs());
      if (peer.isStopping) tellDraining(services, tunnel);
      return;
    }
    case 'tunnel_closed': {
      const { bytesUp, bytesDown, reason, code } = message;
      await lookUp(services, message.tunnel);
      if ((await ownerOf(services, message.tunnel)) !== peer.id) return;
      await services.store.write(async (tx) => {
        // The data plane may have told of the end before; only the connector knows what reached the app.
        await noteBytes(services, tx, peer, message);
        const tunnel = tunnels.get(message.tunnel);
        if (tunnel?.connector !== peer.id || tunnel.state === 'closed') return;
        await endTunnels(services, tx, [tunnel], { reason, code }, { bytesUp, bytesDown });
      });
      return;
    }
    case 'grant_refused': {
      const tunnel = await lookUp(services, message.tunnel);
      const isOurs = tunnel?.connector === peer.id;
      await services.refusals.record(peer.address, {
        actor: `connector:${peer.id}`,
        action: 'grant.refused',
        subject: message.tunnel,
        ref: isOurs ? tunnel.decision : null,
        user: isOurs ? tunnel.userName : null,
        app: isOurs ? tunnel.appName : null,
        details: { code: message.code, reason: message.reason },
      });
      return;
    }
    case 'app_health':
      peer.unhealthy = new Set(
        message.apps.filter(([, isHealthy]) => !isHealthy).map(([name]) => name),
      );
      return;
    case 'stopping':
      peer.isStopping = true;
      services.logger.info('connector_stopping', { connector: peer.id });
      for (const tunnel of tunnels.about('connector', peer.id)) tellDraining(services, tunnel);
      return;
    case 'receipt':
      services.receipts.take(peer.id, peer.signingKey, message.statement);
      return;
    case 'byte_counts':
      noteByteCounts(services, peer, message);
      return;
    case 'tunnel_detached':
      await noteDetached(services, peer, message);
      return;
    case 'tunnel_resumed':
      await noteResumed(services, peer, message);
      return;
    case 'round_trips':
      peer.roundTrips = new Map(message.relays);
      return;
    case 'time':
      return; // answered by the channel itself
  }
}

/** The connector of a tunnel that is or was. */
async function ownerOf({ store }: Services, id: TunnelId): Promise<ConnectorId | undefined> {
  const row = await store.db
    .selectFrom('tunnels')
    .select('connectorId')
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.connectorId;
}

/** Tells its agent that new connections belong in another tunnel. */
function tellDraining(services: Services, tunnel: LiveTunnel): void {
  for (const device of services.peers.devices(tunnel.device)) {
    if (device.version >= 2) device.send({ type: 'tunnel_draining', tunnel: tunnel.id });
  }
}
