import type { WebSocket } from 'ws';
import { WebSocketServer } from 'ws';
import { channelPath, toZtnaError, ZtnaError } from '../../../protocol/index.ts';
import { refuseUpgrade } from '../../../protocol/host/index.ts';
import type { ControlPeer } from '../listener/secure-listener.ts';
import type { Services } from '../services.ts';
import { maxConnectorMessageBytes, serveConnector } from './connector-channel.ts';
import { maxDeviceMessageBytes, serveDevice, type ComebackProgress } from './device-channel.ts';
import { maxRelayMessageBytes, serveRelay } from './relay-channel.ts';

/** Turns checked connections into control channels, each role with the messages and sizes of its own. */
export class Upgrades {
  readonly #services: Services;
  readonly #servers: Readonly<Record<'device' | 'connector' | 'data-plane', WebSocketServer>>;

  constructor(services: Services) {
    this.#services = services;
    const server = (maxPayload: number) =>
      new WebSocketServer({ noServer: true, maxPayload, perMessageDeflate: false });
    this.#servers = {
      device: server(maxDeviceMessageBytes),
      connector: server(maxConnectorMessageBytes),
      'data-plane': server(maxRelayMessageBytes),
    };
  }

  /** `endTurn` lets the listener begin with the next newcomer. */
  async handle(
    peer: ControlPeer,
    request: Parameters<WebSocketServer['handleUpgrade']>[0],
    socket: Parameters<WebSocketServer['handleUpgrade']>[1],
    head: Buffer,
    endTurn: () => void,
  ): Promise<void> {
    socket.on('error', () => undefined);
    let greeted: () => void = () => undefined;
    const gone = new AbortController();
    try {
      socket.once('close', () => {
        gone.abort();
        greeted();
      });
      if (peer.role === 'device') greeted = await this.#services.greetings.begin(gone.signal);
    } catch (error) {
      refuseUpgrade(socket, error); // and no more: there is too much to do already
      return;
    }
    try {
      if (request.url !== channelPath || peer.role === 'control-plane') {
        throw new ZtnaError('ERR_IDENTITY_ROLE', { reason: 'role_wrong' });
      }
      const { role } = peer;
      await this.#refuseRevoked(peer);
      this.#servers[role].handleUpgrade(request, socket, head, (webSocket) => {
        this.#serve(webSocket, peer, { greeted, settled: endTurn });
      });
    } catch (error) {
      await this.#refuse(peer, socket, error);
    }
  }

  #serve(socket: WebSocket, peer: ControlPeer, progress: ComebackProgress): void {
    if (peer.role === 'device') serveDevice(this.#services, socket, peer, progress);
    else if (peer.role === 'connector') serveConnector(this.#services, socket, peer);
    else serveRelay(this.#services, socket, peer);
  }

  /** A certificate lives on for a while after its holder was revoked; the store has the last word. */
  async #refuseRevoked({ role, id }: ControlPeer): Promise<void> {
    const { db } = this.#services.store;
    const table =
      role === 'device' ? 'devices' : role === 'connector' ? 'connectors' : ('relays' as const);
    const row = await db
      .selectFrom(table)
      .select('state')
      .where('id', '=', id as never)
      .executeTakeFirst();
    if (!row || row.state === 'revoked' || row.state === 'removed') {
      throw new ZtnaError('ERR_IDENTITY_REVOKED', { reason: 'identity_revoked' });
    }
    if (row.state === 'disabled' && role !== 'device') {
      throw new ZtnaError('ERR_IDENTITY_REVOKED', { reason: 'identity_disabled' });
    }
  }

  async #refuse(
    peer: ControlPeer,
    socket: Parameters<WebSocketServer['handleUpgrade']>[1],
    error: unknown,
  ): Promise<void> {
    const { code, reason } = toZtnaError(error);
    refuseUpgrade(socket, error);
    await this.#services.refusals.record(peer.address, {
      actor: `${peer.role === 'data-plane' ? 'relay' : peer.role}:${peer.id}`,
      action: 'channel.open',
      subject: peer.id,
      details: { code, reason: reason ?? null, address: peer.address },
    });
  }

  stop(): void {
    for (const server of Object.values(this.#servers)) server.close();
  }
}
