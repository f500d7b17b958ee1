import { once } from 'node:events';
import { createSecretKey, randomBytes, type KeyObject } from 'node:crypto';
import { WebSocket, WebSocketServer } from 'ws';
import { PathKeeper, type PathKeeperOptions } from '../../protocol/host/path-keeper.ts';
import { RecordOpener, RecordSealer } from '../../protocol/record.ts';
import { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';
import { lastingGrant, lastingPermit, testGrant, testPermit } from './tunnel-pair.ts';
import type { AddressInfo } from 'node:net';
import type { ZtnaError } from '../../protocol/errors.ts';
import type { TunnelStream } from '../../protocol/stream.ts';

type KeeperChanges = Partial<
  Pick<PathKeeperOptions, 'mayPass' | 'onDrain' | 'onDetached' | 'holdMs'>
>;

export interface TunnelLinkOptions {
  /** The tunnel outlives its path. */
  readonly isLasting?: boolean;
  readonly onStream: (stream: TunnelStream) => void;
  readonly client?: KeeperChanges;
  readonly connector?: KeeperChanges;
}

/** A client's and a connector's end of one tunnel, joined by a real WebSocket over loopback and real records. */
export class TunnelLink {
  readonly client: PathKeeper;
  readonly connector: PathKeeper;
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
    const { up, down } = newPathKeys();
    const clientEnd = Promise.withResolvers<ZtnaError>();
    const connectorEnd = Promise.withResolvers<ZtnaError>();
    const accepted = Promise.withResolvers<undefined>();
    this.clientEnd = clientEnd.promise;
    this.connectorEnd = connectorEnd.promise;
    this.accepted = accepted.promise;
    const { isLasting = false } = options;
    const common = { mayPass: () => true, holdMs: 60_000, onDetached: () => undefined };
    this.connector = new PathKeeper({
      ...common,
      ...options.connector,
      path: {
        webSocket: this.connectorSocket,
        sealer: new RecordSealer(down),
        opener: new RecordOpener(up),
      },
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'connector',
          grant: isLasting ? lastingGrant : testGrant,
          handlers: { ...handlers, onStream: options.onStream },
        }),
      onEnd: connectorEnd.resolve,
    });
    this.client = new PathKeeper({
      ...common,
      ...options.client,
      path: {
        webSocket: this.clientSocket,
        sealer: new RecordSealer(up),
        opener: new RecordOpener(down),
      },
      createEndpoint: (handlers) =>
        new TunnelEndpoint({
          role: 'client',
          permit: isLasting ? lastingPermit : testPermit,
          handlers: {
            ...handlers,
            onAccept: () => {
              accepted.resolve(undefined);
            },
          },
        }),
      onEnd: clientEnd.resolve,
    });
    this.connector.start();
    this.client.start();
  }

  static async open(options: TunnelLinkOptions): Promise<TunnelLink> {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
    await once(server, 'listening');
    return new TunnelLink(server, await join(server), options);
  }

  /** Another WebSocket between the two. */
  async anotherPath(): Promise<readonly [client: WebSocket, connector: WebSocket]> {
    return join(this.#server);
  }

  async close(): Promise<void> {
    this.client.close('ERR_TUNNEL_CLOSED', 'test_over');
    this.connector.close('ERR_TUNNEL_CLOSED', 'test_over');
    await Promise.all([this.client.gone(), this.connector.gone()]);
    for (const left of this.#server.clients) left.terminate();
    await new Promise((resolve) => {
      this.#server.close(resolve);
    });
  }
}

/** Fresh keys, as a handshake would make them. */
export function newPathKeys(): { readonly up: KeyObject; readonly down: KeyObject } {
  return { up: createSecretKey(randomBytes(32)), down: createSecretKey(randomBytes(32)) };
}

async function join(server: WebSocketServer): Promise<readonly [WebSocket, WebSocket]> {
  const { port } = server.address() as AddressInfo;
  const client = new WebSocket(`ws://127.0.0.1:${port}`, {
    perMessageDeflate: false,
    generateMask: (mask) => mask.fill(0),
  });
  const [[connector]] = (await Promise.all([once(server, 'connection'), once(client, 'open')])) as [
    [WebSocket],
    unknown,
  ];
  return [client, connector];
}
