import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import {
  ConnectorHandshake,
  ConnectorResume,
  errorRow,
  resumeSecretOf,
  toCloseFrame,
  TunnelEndpoint,
  verifyGrantAtConnector,
  type Bundle,
  type ConnectorId,
  type ErrorCode,
  type InstanceId,
  type NoiseKeyPair,
  type ProvedClient,
  type RelayId,
  type ResumeSecret,
  type TunnelStream,
} from '../../../protocol/index.ts';
import { PathInbox, PathKeeper } from '../../../protocol/host/index.ts';

/** Who the connector is, and what is to happen. */
export interface ConnectorRole {
  readonly bundle: Bundle;
  readonly relay: RelayId;
  readonly connector: ConnectorId;
  readonly instance: InstanceId;
  readonly connectorKeys: NoiseKeyPair;
  /** As the relay handed it over. */
  readonly grantStatement: string;
  readonly nowMs: number;
  /** Instead of believing the grant: closes the path with this code after message 3. */
  readonly refusal?: ErrorCode;
  /** Answers message 1 with this instead of message 2; null says nothing. */
  readonly message2?: Buffer | string | null;
  readonly onStream?: (stream: TunnelStream) => void;
  /** Tunnels that outlive their paths, by id: what a later path takes up. */
  readonly kept?: Map<string, KeptEnd>;
}

/** The connector's end of a tunnel between two paths. */
export interface KeptEnd {
  readonly keeper: PathKeeper;
  readonly secret: ResumeSecret;
}

/** The connector's end of one path. */
export class ConnectorEnd {
  keeper: PathKeeper | undefined;
  /** Why the connector's end of the tunnel ended. */
  readonly ended: Promise<{ code: ErrorCode; reason: string | undefined }>;
  readonly #webSocket: WebSocket;
  readonly #role: ConnectorRole;
  readonly #ended = Promise.withResolvers<{ code: ErrorCode; reason: string | undefined }>();

  constructor(webSocket: WebSocket, role: ConnectorRole) {
    this.#webSocket = webSocket;
    this.#role = role;
    this.ended = this.#ended.promise;
    webSocket.once('message', (message1: Buffer) => {
      try {
        this.#answer(message1);
      } catch (error) {
        const { closeCode, text } = toCloseFrame(error);
        webSocket.close(closeCode, text);
      }
    });
  }

  /** Drops the path without a word. */
  cut(): void {
    this.#webSocket.terminate();
  }

  /** Says something as the relay on the way. */
  say(text: string): void {
    this.#webSocket.send(text);
  }

  /** Closes the path as a data plane does: with a code and no reason. */
  close(code: ErrorCode): void {
    this.#webSocket.close(errorRow(code).closeCode, code);
  }

  #answer(message1: Buffer): void {
    const { message2, refusal } = this.#role;
    const handshake = new ConnectorHandshake(this.#role);
    if (message2 === null) return;
    this.#webSocket.send(message2 ?? handshake.receiveMessage1(message1));
    this.#webSocket.once('message', (message3: Buffer) => {
      if (refusal) this.close(refusal);
      else this.#accept(handshake.receiveMessage3(message3)).catch(() => this.cut());
    });
  }

  async #accept(client: ProvedClient): Promise<void> {
    const { onStream = () => undefined, kept } = this.#role;
    const { peerStatic } = client;
    const grant = verifyGrantAtConnector(client.grantStatement, { ...this.#role, peerStatic });
    const transport = client.admit(grant);
    const { sealer, opener } = transport;
    const before = kept?.get(grant.tunnel);
    if (before) {
      const inbox = new PathInbox(this.#webSocket);
      const request = opener.open(await inbox.next(5_000));
      const resumed = new ConnectorResume({ secret: before.secret, transport }).receive(request);
      const early = inbox.take().records;
      this.keeper = before.keeper;
      this.keeper.replace({ webSocket: this.#webSocket, sealer, opener, early }, resumed);
      return;
    }
    this.keeper = new PathKeeper({
      path: { webSocket: this.#webSocket, sealer, opener },
      holdMs: grant.holdMs,
      createEndpoint: (handlers) =>
        new TunnelEndpoint({ role: 'connector', grant, handlers: { ...handlers, onStream } }),
      mayPass: () => true,
      onDetached: () => undefined,
      onEnd: ({ code, reason }) => {
        this.#ended.resolve({ code, reason });
      },
    });
    kept?.set(grant.tunnel, { keeper: this.keeper, secret: resumeSecretOf(transport) });
    this.keeper.start();
  }
}

/** A relay that splices and the connector behind it, on plain WebSockets. */
export class FakeConnector {
  /** The path that was dialled last. */
  end: Promise<ConnectorEnd>;
  readonly #server: WebSocketServer;

  static async start(role: ConnectorRole): Promise<FakeConnector> {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
    await once(server, 'listening');
    return new FakeConnector(server, role);
  }

  private constructor(server: WebSocketServer, role: ConnectorRole) {
    this.#server = server;
    this.end = new Promise((resolve) => {
      server.once('connection', (webSocket) => {
        resolve(new ConnectorEnd(webSocket, role));
      });
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

  stop(): void {
    for (const webSocket of this.#server.clients) webSocket.terminate();
    this.#server.close();
  }
}
