import { createPublicKey } from 'node:crypto';
import {
  ConnectorHandshake,
  ConnectorResume,
  encodeMessage,
  fromSlot,
  toZtnaError,
  ZtnaError,
  type ByteBudget,
  type FromConnector,
  type RelayId,
  type Assign,
} from '../protocol/index.ts';
import { PathInbox, type Identity, type Logger } from '../protocol/host/index.ts';
import { admitClient, admitPath, findTunnel, isLaterPath, type Gate } from './grant-gate.ts';
import { closeWebSocket } from './close-web-socket.ts';
import { maxDetachedPerDevice, maxTunnels, resumeTimeoutMs } from './limits.ts';
import { proveClient, type Proof } from './prove-client.ts';
import { Tunnel, type TunnelEnd } from './tunnel.ts';
import type { Admission } from './grant-gate.ts';
import type { StreamBudget } from './stream-budget.ts';
import type { Metrics } from './metrics.ts';
import type { TunnelTable } from './tunnel-table.ts';
import type { WebSocket } from 'ws';

export interface TunnelOpenerOptions {
  readonly identity: () => Identity;
  readonly gate: Gate;
  readonly table: TunnelTable<Tunnel>;
  readonly budget: ByteBudget;
  readonly replayBudget: ByteBudget;
  readonly streams: StreamBudget;
  readonly metrics: Metrics;
  readonly logger: Logger;
  /** Tells the control plane, now or when it is back. */
  readonly tell: (message: FromConnector) => void;
}

/** Turns an assigned socket into an open tunnel or into the next path of one, or refuses it with one code. */
export class TunnelOpener {
  readonly #options: TunnelOpenerOptions;
  #opening = 0;

  constructor(options: TunnelOpenerOptions) {
    this.#options = options;
  }

  /** Acknowledges or refuses within the turn, then goes on by itself; never throws. */
  open(socket: WebSocket, assign: Assign, relay: RelayId): void {
    const { tunnel } = assign;
    let handshake: ConnectorHandshake;
    try {
      const { table } = this.#options;
      const others = table.find(tunnel) ? 0 : table.total;
      if (this.#opening + others >= maxTunnels) {
        throw new ZtnaError('ERR_LIMIT_TUNNELS', { reason: 'tunnels_full' });
      }
      handshake = this.#createHandshake(assign.grant, relay);
    } catch (error) {
      const { code } = toZtnaError(error);
      socket.send(encodeMessage(fromSlot, { type: 'refused', tunnel, code }));
      this.#refuse(socket, assign, error);
      return;
    }
    socket.send(encodeMessage(fromSlot, { type: 'assigned', tunnel }));
    this.#opening++;
    void this.#prove(socket, assign, handshake).finally(() => {
      this.#opening--;
    });
  }

  #createHandshake(grantStatement: string, relay: RelayId): ConnectorHandshake {
    const { bundle, noiseKey } = this.#options.identity();
    const connectorKeys = { privateKey: noiseKey, publicKey: createPublicKey(noiseKey) };
    return new ConnectorHandshake({ grantStatement, bundle, relay, connectorKeys });
  }

  async #prove(socket: WebSocket, assign: Assign, handshake: ConnectorHandshake): Promise<void> {
    try {
      const proof = await proveClient(socket, handshake);
      const admission = await admitClient(proof.client, assign.tunnel, this.#options.gate);
      if (isLaterPath(admission.grant)) await this.#resume(socket, proof, admission);
      else this.#start(socket, proof, admission);
    } catch (error) {
      this.#refuse(socket, assign, error);
    }
  }

  #start(socket: WebSocket, { client, held }: Proof, admission: Admission): void {
    const { table, budget, replayBudget, streams, metrics, logger, tell } = this.#options;
    const tunnel = new Tunnel({
      admission,
      transport: client.admit(admission.grant),
      webSocket: socket,
      early: held.take(),
      budget,
      replayBudget,
      streams,
      metrics,
      logger,
      onDetached: this.#onDetached,
      onEnd: this.#onEnd,
    });
    table.add(tunnel);
    metrics.count('tunnels_opened_total');
    const { tunnel: id, device, decision } = tunnel.grant;
    logger.info('tunnel_opened', { tunnel: id, app: tunnel.appName, device, decision });
    tell({ type: 'tunnel_opened', tunnel: id });
    tunnel.start();
  }

  /** The tunnel's present path goes on until the client of the next one has proved that it is the tunnel's own. */
  async #resume(socket: WebSocket, { client, held }: Proof, admission: Admission): Promise<void> {
    const { gate, table, metrics, logger, tell } = this.#options;
    const { grant } = admission;
    const transport = client.admit(grant);
    const secret = findTunnel(grant, table).resumeSecret;
    const inbox = new PathInbox(socket, held.take());
    try {
      socket.resume();
      const record = transport.opener.open(await inbox.next(resumeTimeoutMs));
      const resumed = new ConnectorResume({ secret, transport }).receive(record);
      const { tunnel, lease } = admitPath(admission, gate, table);
      tunnel.resume({
        grant,
        lease,
        transport,
        webSocket: socket,
        early: inbox.take().records,
        resumed,
      });
    } finally {
      inbox.release();
    }
    const { tunnel, generation, decision } = grant;
    metrics.count('tunnels_resumed_total');
    logger.info('tunnel_resumed', { tunnel, generation, decision });
    tell({ type: 'tunnel_resumed', tunnel, generation });
  }

  #refuse(socket: WebSocket, assign: Assign, thrown: unknown): void {
    const { metrics, logger, tell } = this.#options;
    const error = toZtnaError(thrown);
    const { code } = error;
    const reason = error.reason ?? code.slice('ERR_'.length).toLowerCase();
    closeWebSocket(socket, error);
    metrics.count('grants_refused_total', { code });
    const { message } = error.code === 'ERR_INTERNAL' ? toZtnaError(error.cause ?? error) : error;
    logger.warn('grant_refused', { tunnel: assign.tunnel, code, reason, message });
    if (code === 'ERR_TUNNEL_PATH_LOST') return; // the client left: nothing was refused
    tell({ type: 'grant_refused', tunnel: assign.tunnel, code, reason });
  }

  readonly #onDetached = (tunnel: Tunnel, error: ZtnaError): void => {
    const { table, metrics, logger, tell } = this.#options;
    const { tunnel: id, generation, holdMs } = tunnel.grant;
    const reason = error.reason ?? error.code.slice('ERR_'.length).toLowerCase();
    const detached = table.noteDetached(tunnel);
    if (detached.length > maxDetachedPerDevice) {
      // As the control plane does: whoever has waited longest is the least likely to come back.
      detached[0]?.end('ERR_LIMIT_TUNNELS', 'detached_full');
    }
    metrics.count('tunnels_detached_total', { reason });
    logger.info('tunnel_detached', { tunnel: id, generation, reason, holdMs });
    tell({ type: 'tunnel_detached', tunnel: id, generation, reason });
  };

  readonly #onEnd = (tunnel: Tunnel, end: TunnelEnd): void => {
    const { table, metrics, logger, tell } = this.#options;
    const { reason, bytesUp, bytesDown } = end;
    const { code } = end.error;
    table.remove(tunnel);
    metrics.count('tunnels_closed_total', { code });
    metrics.count('app_bytes_up_total', {}, bytesUp);
    metrics.count('app_bytes_down_total', {}, bytesDown);
    const { tunnel: id } = tunnel.grant;
    logger.info('tunnel_closed', {
      tunnel: id,
      app: tunnel.appName,
      code,
      reason,
      bytesUp,
      bytesDown,
    });
    tell({ type: 'tunnel_closed', tunnel: id, code, reason, bytesUp, bytesDown });
  };
}
