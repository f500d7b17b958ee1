import { once } from 'node:events';
import { createSecretKey, randomBytes } from 'node:crypto';
import { WebSocket, WebSocketServer } from 'ws';
import { RecordPump, type RecordPumpOptions } from '../../protocol/host/record-pump.ts';
import { RecordOpener, RecordSealer } from '../../protocol/record.ts';
import { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';
import { testGrant, testPermit } from './tunnel-pair.ts';
import type { AddressInfo } from 'node:net';
import type { ZtnaError } from '../../protocol/errors.ts';
import type { TunnelStream } from '../../protocol/stream.ts';

type PumpChanges = Partial<Pick<RecordPumpOptions, 'mayPass' | 'onText' | 'early'>>;

export interface TunnelLinkOptions {
  readonly onStream: (stream: TunnelStream) => void;
  readonly client?: PumpChanges;
  readonly connector?: PumpChanges;
}

/** A client's and a connector's end of one tunnel, joined by a real WebSocket over loopback and real records. */
export class TunnelLink {
  readonly client: RecordPump;
  readonly connector: RecordPump;
  readonly clientSocket: WebSocket;
  readonly connectorSocket: WebSocket;
  readonly clientEnd: Promise<ZtnaError>;
  readonly connectorEnd: Promise<ZtnaError>;
  readonly accepted: Promise<void>;
  readonly #server: WebSocketServer;

  private constructor(
    server: WebSocketServer,
    sockets: readonly [WebSocket, WebSocket],
    options: TunnelLinkOptions,
  ) {
    this.#server = server;
    [this.clientSocket, this.connectorSocket] = sockets;
    const upKey = createSecretKey(randomBytes(32));
    const downKey = createSecretKey(randomBytes(32));
    const clientEnd = Promise.withResolvers<ZtnaError>();
    const connectorEnd = Promise.withResolvers<ZtnaError>();
    const accepted = Promise.withResolvers<undefined>();
    this.clientEnd = clientEnd.promise;
    this.connectorEnd = connectorEnd.promise;
    this.accepted = accepted.promise;
    this.connector = new RecordPump({
      mayPass: () => true,
      ...options.connector,
      webSocket: this.connectorSocket,
      sealer: new RecordSealer(downKey),
      opener: new RecordOpener(upKey),
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'connector',
          grant: testGrant,
          handlers: { ...handlers, onStream: options.onStream },
        }),
      onEnd: connectorEnd.resolve,
    });
    this.client = new RecordPump({
      mayPass: () => true,
      ...options.client,
      webSocket: this.clientSocket,
      sealer: new RecordSealer(upKey),
      opener: new RecordOpener(downKey),
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'client',
          permit: testPermit,
          handlers: {
            ...handlers,
            onAccept: () => {
              accepted.resolve(undefined);
            },
          },
        }),
      onEnd: clientEnd.resolve,
    });
  }

  static async open(options: TunnelLinkOptions): Promise<TunnelLink> {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const client = new WebSocket(`ws://127.0.0.1:${port}`, {
      perMessageDeflate: false,
      generateMask: (mask) => mask.fill(0),
    });
    const [[connector]] = (await Promise.all([
      once(server, 'connection'),
      once(client, 'open'),
    ])) as [[WebSocket], unknown];
    return new TunnelLink(server, [client, connector], options);
  }

  async close(): Promise<void> {
    this.client.close('ERR_TUNNEL_CLOSED', 'test_over');
    this.connector.close('ERR_TUNNEL_CLOSED', 'test_over');
    await Promise.all([this.client.closed, this.connector.closed]);
    await new Promise((resolve) => {
      this.#server.close(resolve);
    });
  }
}
