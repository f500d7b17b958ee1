import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import {
  ConnectorHandshake,
  errorRow,
  toCloseFrame,
  TunnelEndpoint,
  verifyGrantAtConnector,
  type ErrorCode,
  type TunnelStream,
} from '../../../protocol/index.ts';
import { RecordPump } from '../../../protocol/host/index.ts';
import { testNowMs, type TestAuthority } from '../../support/authority.ts';

export interface FakeConnectorOptions {
  readonly authority: TestAuthority;
  readonly grantStatement: string;
  /** Instead of believing the grant: closes the path with this code after message 3. */
  readonly refusal?: ErrorCode;
  /** Answers message 1 with this instead of message 2. */
  readonly message2?: Buffer | string | null;
  readonly onStream?: (stream: TunnelStream) => void;
}

/** The other end of a path: a relay that splices and the connector behind it, on one plain WebSocket. */
export class FakeConnector {
  pump: RecordPump | undefined;
  /** Why the connector's end of the tunnel ended. */
  readonly ended: Promise<{ code: ErrorCode; reason: string | undefined }>;
  readonly #server: WebSocketServer;
  readonly #options: FakeConnectorOptions;
  readonly #ended = Promise.withResolvers<{ code: ErrorCode; reason: string | undefined }>();

  static async start(options: FakeConnectorOptions): Promise<FakeConnector> {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
    await once(server, 'listening');
    return new FakeConnector(server, options);
  }

  private constructor(server: WebSocketServer, options: FakeConnectorOptions) {
    this.#server = server;
    this.#options = options;
    this.ended = this.#ended.promise;
    server.on('connection', (webSocket) => {
      this.#serve(webSocket);
    });
  }

  /** The client's side of the path. */
  async dial(): Promise<WebSocket> {
    const { port } = this.#server.address() as AddressInfo;
    const webSocket = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false });
    webSocket.on('error', () => undefined);
    await once(webSocket, 'open');
    return webSocket;
  }

  get clientCount(): number {
    return this.#server.clients.size;
  }

  stop(): void {
    for (const webSocket of this.#server.clients) webSocket.terminate();
    this.#server.close();
  }

  /** Drops the path without a word. */
  cut(): void {
    for (const webSocket of this.#server.clients) webSocket.terminate();
  }

  /** Closes the path as a data plane does: with a code and no reason. */
  closePath(code: ErrorCode): void {
    for (const webSocket of this.#server.clients) webSocket.close(errorRow(code).closeCode, code);
  }

  #serve(webSocket: WebSocket): void {
    const { authority, grantStatement, refusal, message2 } = this.#options;
    const handshake = new ConnectorHandshake({
      grantStatement,
      bundle: authority.bundle,
      relay: authority.relay,
      connectorKeys: authority.connectorKeys,
    });
    webSocket.once('message', (message1: Buffer) => {
      if (message2 === null) return;
      try {
        webSocket.send(message2 ?? handshake.receiveMessage1(message1));
      } catch (error) {
        const { closeCode, text } = toCloseFrame(error);
        webSocket.close(closeCode, text);
        return;
      }
      webSocket.once('message', (message3: Buffer) => {
        if (refusal) webSocket.close(errorRow(refusal).closeCode, refusal);
        else this.#accept(webSocket, handshake.receiveMessage3(message3));
      });
    });
  }

  #accept(webSocket: WebSocket, client: ReturnType<ConnectorHandshake['receiveMessage3']>): void {
    const { authority, onStream = () => undefined } = this.#options;
    const grant = verifyGrantAtConnector(client.grantStatement, {
      bundle: authority.bundle,
      connector: authority.connector,
      instance: authority.instance,
      peerStatic: client.peerStatic,
      nowMs: testNowMs,
    });
    const { sealer, opener } = client.admit(grant);
    this.pump = new RecordPump({
      webSocket,
      sealer,
      opener,
      createEndpoint: (handlers) =>
        new TunnelEndpoint({ role: 'connector', grant, handlers: { ...handlers, onStream } }),
      mayPass: () => true,
      onEnd: ({ code, reason }) => {
        this.#ended.resolve({ code, reason });
      },
    });
  }
}
