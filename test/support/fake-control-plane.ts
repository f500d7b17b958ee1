import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { WebSocketServer, type WebSocket } from 'ws';
import {
  controlProtocol,
  decodeMessage,
  encodeMessage,
  fromRelay,
  leaseBatchSchema,
  logBatchSchema,
  relayListSchema,
  signStatement,
  timeSchema,
  toRelay,
  type FromRelay,
  type LeaseBatch,
  type RelayId,
  type RevocationEntry,
  type SigningKey,
  type ToRelay,
  wireVersion,
} from '../../protocol/index.ts';
import { secureServerOptions, webSocketOptions } from '../../protocol/host/index.ts';

export interface FakeControlPlaneOptions {
  readonly socketPath: string;
  readonly keyPem: string;
  readonly certificatePem: string;
  readonly authorities: readonly string[];
  readonly grantKey: SigningKey;
  readonly relay: RelayId;
  /** Control time; by default the machine's. */
  readonly nowMs?: () => number;
}

/**
 * The control plane as a data plane sees it: greets, tells the time, pushes what a test wants pushed. It listens on
 * a unix socket; what comes behind a PROXY line is noted in `proxied` and otherwise treated alike.
 */
export class FakeControlPlane {
  readonly proxied: string[] = [];
  readonly received: FromRelay[] = [];
  /** What it keeps to itself: 'time' or 'log'. */
  readonly silent = new Set<'time' | 'log'>();
  incarnation = 1;
  position = 0;
  /** Takes what was handed on and is not the control protocol; by default it ends in TLS here as well. */
  onRaw: ((socket: Socket, firstBytes: Buffer) => void) | undefined;

  readonly #options: FakeControlPlaneOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #channels = new Set<WebSocket>();
  readonly #waiting = new Set<() => void>();

  private constructor(options: FakeControlPlaneOptions) {
    this.#options = options;
    const http = createHttpServer();
    const upgrades = new WebSocketServer({ ...webSocketOptions(controlProtocol), noServer: true });
    http.on('upgrade', (request, socket, head) => {
      upgrades.handleUpgrade(request, socket, head, (ws) => {
        this.#serve(ws);
      });
    });
    const tls = createTlsServer(
      secureServerOptions({
        keyPem: options.keyPem,
        certificatePem: options.certificatePem,
        clientAuthorities: options.authorities,
        alpn: [controlProtocol],
      }),
      (socket) => {
        socket.on('error', () => undefined);
        http.emit('connection', socket);
      },
    );
    tls.on('tlsClientError', () => undefined);
    this.#server = createServer({ allowHalfOpen: true }, (socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => undefined);
      socket.once('close', () => this.#sockets.delete(socket));
      socket.once('data', (bytes) => {
        socket.pause();
        const isProxied = bytes.subarray(0, 6).toString('latin1') === 'PROXY ';
        const end = isProxied ? bytes.indexOf('\r\n') + 2 : 0;
        if (isProxied) {
          this.proxied.push(bytes.toString('latin1', 0, end));
          this.#wake();
        }
        const rest = bytes.subarray(end);
        if (isProxied && this.onRaw) {
          this.onRaw(socket, rest);
          return;
        }
        if (rest.length > 0) socket.unshift(rest);
        tls.emit('connection', socket);
      });
    });
  }

  static async start(options: FakeControlPlaneOptions): Promise<FakeControlPlane> {
    const plane = new FakeControlPlane(options);
    await new Promise<void>((resolve) => {
      plane.#server.listen(options.socketPath, resolve);
    });
    return plane;
  }

  #serve(ws: WebSocket): void {
    ws.on('error', () => undefined);
    ws.on('message', (data: Buffer) => {
      const message = decodeMessage(fromRelay, data);
      if (message.type === 'time') {
        if (!this.silent.has('time')) this.#tellTime(ws, message.nonce);
        return;
      }
      this.received.push(message);
      if (message.type === 'hello') {
        this.#send(ws, {
          type: 'welcome',
          version: wireVersion,
          relay: this.#options.relay,
          bundle: null,
        });
        this.#channels.add(ws);
        ws.once('close', () => this.#channels.delete(ws));
        if (!this.silent.has('log')) this.pushLog([]);
      }
      this.#wake();
    });
  }

  #tellTime(ws: WebSocket, nonce: string): void {
    const { grantKey, nowMs = Date.now } = this.#options;
    const statement = signStatement('time', timeSchema, { nonce, timeMs: nowMs() }, grantKey);
    this.#send(ws, { type: 'time', statement });
  }

  #send(ws: WebSocket, message: ToRelay): void {
    ws.send(encodeMessage(toRelay, message));
  }

  #broadcast(message: ToRelay): void {
    for (const ws of this.#channels) this.#send(ws, message);
  }

  /** Pushes any message to every data plane that is connected. */
  push(message: ToRelay): void {
    this.#broadcast(message);
  }

  /** Appends entries to the log and pushes them, signed. */
  pushLog(entries: readonly Omit<RevocationEntry, 'position'>[]): void {
    const numbered = entries.map((entry) => ({ position: ++this.position, ...entry }));
    const batch = {
      audience: this.#options.relay,
      incarnation: this.incarnation,
      entries: numbered,
      completeTo: this.position,
    };
    const statement = signStatement('log', logBatchSchema, batch, this.#options.grantKey);
    this.#broadcast({ type: 'log', statement });
  }

  /** Pushes the list of relays, signed: this one and others. */
  pushRelays(version: number, others: readonly { id: RelayId; isDraining?: boolean }[]): void {
    const relays = [{ id: this.#options.relay }, ...others].map((relay, at) => ({
      id: relay.id,
      url: `https://127.0.0.1:${String(443 + at)}`,
      isControl: at === 0,
      isDraining: 'isDraining' in relay && relay.isDraining,
    }));
    const list = { version, relays };
    const statement = signStatement('relays', relayListSchema, list, this.#options.grantKey);
    this.#broadcast({ type: 'relays', statement });
  }

  /** Pushes renewals, signed. */
  pushLeases(batch: LeaseBatch): void {
    const statement = signStatement('lease', leaseBatchSchema, batch, this.#options.grantKey);
    this.#broadcast({ type: 'leases', statement });
  }

  #wake(): void {
    for (const waiter of [...this.#waiting]) waiter();
  }

  /** Resolves once `condition` holds; asked again whenever something arrives. */
  until(condition: () => boolean): Promise<void> {
    if (condition()) return Promise.resolve();
    return new Promise((resolve) => {
      const waiter = () => {
        if (!condition()) return;
        this.#waiting.delete(waiter);
        resolve();
      };
      this.#waiting.add(waiter);
    });
  }

  /** The first message of that type that `matches`, received already or to come. */
  async message<T extends FromRelay['type']>(
    type: T,
    matches: (message: Extract<FromRelay, { type: T }>) => boolean = () => true,
  ): Promise<Extract<FromRelay, { type: T }>> {
    const find = () =>
      this.received.find(
        (message): message is Extract<FromRelay, { type: T }> =>
          message.type === type && matches(message as Extract<FromRelay, { type: T }>),
      );
    await this.until(() => find() !== undefined);
    const found = find();
    if (!found) throw new Error('unreachable');
    return found;
  }

  /** Cuts every connection; keeps listening. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => {
        resolve();
      });
    });
    this.cut();
    await closed;
  }
}
