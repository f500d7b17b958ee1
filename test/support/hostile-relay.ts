import { once } from 'node:events';
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { Tunnel as ClientTunnel } from '../../client/agent/tunnel.ts';
import { startLocalPort, type LocalPort } from '../../client/front-end/local-port.ts';
import { StreamBudget } from '../../connector/stream-budget.ts';
import { TunnelOpener } from '../../connector/tunnel-opener.ts';
import { Metrics } from '../../connector/metrics.ts';
import type { Tunnel as ConnectorTunnel } from '../../connector/tunnel.ts';
import { TunnelTable } from '../../connector/tunnel-table.ts';
import { UsedGrants } from '../../connector/used-grants.ts';
import {
  ByteBudget,
  toZtnaError,
  type FromConnector,
  type Grant,
  type ToSlot,
} from '../../protocol/index.ts';
import { createLogger, type ControlClock, type Identity } from '../../protocol/host/index.ts';
import { TestAuthority, testNowMs } from './authority.ts';

export type Direction = 'up' | 'down';

/**
 * What the relay does with message `index` of a direction: the messages to pass on in its place, at once. Text between
 * relay and connector is the relay's own and does not count; a string is passed on as such.
 */
export type Meddling = (
  direction: Direction,
  index: number,
  message: Buffer,
) => readonly (Buffer | string)[];

/** How one tunnel through a relay that meddles ended, at both ends and at their local sockets. */
export interface Outcome {
  /** Code with which the client's end of the tunnel failed. */
  readonly client: string;
  /** What the connector told its control plane: each refusal and end, by code. */
  readonly connector: readonly string[];
  /** What the local program received, and whether its socket ended as if the app had finished. */
  readonly received: Buffer;
  readonly isCleanEnd: boolean;
  /** What the app received in all, and how often it was dialled. */
  readonly delivered: Buffer;
  readonly dials: number;
  /** Messages as the ends sent them. */
  readonly recorded: Readonly<Record<Direction, readonly Buffer[]>>;
}

const logger = createLogger({ program: 'test', write: () => undefined });

/** Real client, real connector and a real app, with a relay between them that does what a test wants. */
export class HostileRelay {
  readonly authority = new TestAuthority();
  readonly #server: WebSocketServer;
  readonly #app: Server;
  #appSockets: Socket[] = [];
  #delivered: Buffer[] = [];
  #dials = 0;
  #path: readonly WebSocket[] = [];
  #serve: (socket: Socket) => void = (socket) => {
    socket.pipe(socket);
  };

  private constructor(server: WebSocketServer, app: Server) {
    this.#server = server;
    this.#app = app;
    app.on('connection', (socket) => {
      this.#dials++;
      this.#appSockets.push(socket);
      socket.on('error', () => undefined);
      socket.on('data', (chunk: Buffer) => this.#delivered.push(chunk));
      this.#serve(socket);
    });
  }

  static async start(): Promise<HostileRelay> {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
    const app = createServer({ allowHalfOpen: true });
    app.listen(0, '127.0.0.1');
    await Promise.all([once(server, 'listening'), once(app, 'listening')]);
    return new HostileRelay(server, app);
  }

  /** What the app does with each connection; it echoes unless told otherwise. */
  behave(serve: (socket: Socket) => void): void {
    this.#serve = serve;
  }

  /** Closes the present tunnel's WebSockets from the relay's side, with that code and no text. */
  closePath(code: number): void {
    for (const ws of this.#path) ws.close(code);
  }

  /** Opens a tunnel through the meddling relay, sends `payload` through it, and waits for its end. */
  async run(
    meddle: Meddling,
    payload = Buffer.from('hello'),
    options: RunOptions = {},
  ): Promise<Outcome> {
    this.#delivered = [];
    this.#appSockets = [];
    this.#dials = 0;
    const { authority } = this;
    const permit = options.permit ?? authority.permit();
    const recorded: Record<Direction, Buffer[]> = { up: [], down: [] };
    const [client, relayUp] = await this.#webSocketPair();
    const [connector, relayDown] = await this.#webSocketPair();
    this.#path = [relayUp, relayDown];
    const joined = { up: [relayUp, relayDown], down: [relayDown, relayUp] } as const;
    for (const direction of ['up', 'down'] as const) {
      const [from, to] = joined[direction];
      from.on('message', (data: Buffer, isBinary: boolean) => {
        if (!isBinary) return;
        const index = recorded[direction].push(data) - 1;
        for (const message of meddle(direction, index, data)) to.send(message);
      });
      from.once('close', (code, text) => {
        to.close(code >= 4_000 ? code : 4_500, text);
      });
    }
    const ends = this.#openConnector(connector, permit.grant.statement, options);
    const clientEnd = await this.#openClient(client, permit, payload, options.timeoutMs);
    client.terminate(); // the connector hears of it behind all that was sent
    await ends.over;
    for (const ws of [relayUp, relayDown]) ws.terminate();
    await Promise.all(this.#appSockets.map(closed));
    return {
      ...clientEnd,
      connector: ends.told,
      delivered: Buffer.concat(this.#delivered),
      dials: this.#dials,
      recorded,
    };
  }

  async #webSocketPair(): Promise<[near: WebSocket, far: WebSocket]> {
    const near = new WebSocket(`ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}`, {
      perMessageDeflate: false,
    });
    const [[far]] = (await Promise.all([once(this.#server, 'connection'), once(near, 'open')])) as [
      [WebSocket],
      unknown,
    ];
    for (const ws of [near, far]) ws.on('error', () => undefined);
    return [near, far];
  }

  #openConnector(
    socket: WebSocket,
    grant: string,
    { connectorKeys = this.authority.connectorKeys, tunnel }: RunOptions,
  ): { readonly told: string[]; readonly over: Promise<void> } {
    const { authority } = this;
    const { port } = this.#app.address() as AddressInfo;
    const target = { kind: 'tcp', host: '127.0.0.1', port } as const;
    const { app, relay, bundle, connector, instance } = authority;
    const told: string[] = [];
    const over = Promise.withResolvers<undefined>();
    socket.once('close', () => {
      setImmediate(() => over.resolve(undefined)); // its owner hears of it first
    });
    const table = new TunnelTable<ConnectorTunnel>();
    const opener = new TunnelOpener({
      identity: () => ({ bundle, noiseKey: connectorKeys.privateKey }) as unknown as Identity,
      gate: {
        bundle: () => bundle,
        connector,
        instance,
        nowMs: () => testNowMs,
        feed: { waitFor: () => Promise.resolve(true), isRevokedAfter: () => undefined },
        apps: () => new Map([[app, { id: app, name: 'app', target }]]),
        usedGrants: this.#usedGrants,
        openTunnels: () => table,
      },
      table,
      budget: new ByteBudget(16_777_216),
      replayBudget: new ByteBudget(16_777_216),
      streams: new StreamBudget(),
      metrics: new Metrics(),
      logger,
      tell: (message: FromConnector) => {
        if (message.type === 'tunnel_closed' || message.type === 'grant_refused')
          told.push(message.code);
      },
    });
    const assign: ToSlot = {
      type: 'assign',
      tunnel: tunnel ?? this.#tunnelOf(grant),
      grant,
    };
    opener.open(socket, assign, relay);
    return { told, over: over.promise };
  }

  readonly #usedGrants = new UsedGrants();

  #tunnelOf(statement: string): Grant['tunnel'] {
    const payload = Buffer.from(statement.split('.')[2] ?? '', 'base64url').toString('utf8');
    return (JSON.parse(payload) as Grant).tunnel;
  }

  async #openClient(
    webSocket: WebSocket,
    permit: ReturnType<TestAuthority['permit']>,
    payload: Buffer,
    timeoutMs = 20_000,
  ): Promise<Pick<Outcome, 'client' | 'received' | 'isCleanEnd'>> {
    const { relay, bundle, deviceKeys } = this.authority;
    const received: Buffer[] = [];
    let isCleanEnd = false as boolean; // set by a listener
    let local: LocalPort | undefined;
    const timer = setTimeout(() => {
      webSocket.terminate();
    }, timeoutMs);
    try {
      const tunnel = await ClientTunnel.open({
        permit,
        relay: { id: relay, url: '' },
        identity: { rootId: bundle.rootId, noiseKey: deviceKeys.privateKey },
        webSocket,
        clock: { nowMs: () => testNowMs } as unknown as ControlClock,
      });
      tunnel.accepted.catch(() => undefined);
      const current = {
        openStream: () => tunnel.openStream(),
      } as unknown as NonNullable<Parameters<typeof startLocalPort>[1]['current']>;
      local = await startLocalPort(
        { host: '127.0.0.1', port: 0 },
        { current, whenOpen: () => Promise.resolve(current) },
      );
      const socket = connect({ ...local.address, allowHalfOpen: true });
      socket.on('error', () => undefined);
      socket.on('data', (chunk: Buffer) => received.push(chunk));
      socket.once('end', () => {
        isCleanEnd = true;
      });
      socket.end(payload);
      const gone = closed(socket);
      await gone;
      const isDone = isCleanEnd && tunnel.isOpen;
      if (isDone) tunnel.end('ERR_TUNNEL_CLOSED', 'test_over');
      const { code } = await tunnel.closed;
      await tunnel.gone();
      return { client: isDone ? 'done' : code, received: Buffer.concat(received), isCleanEnd };
    } catch (error) {
      return { client: toZtnaError(error).code, received: Buffer.alloc(0), isCleanEnd };
    } finally {
      clearTimeout(timer);
      await local?.stop();
    }
  }

  async stop(): Promise<void> {
    for (const ws of this.#server.clients) ws.terminate();
    await Promise.all([
      new Promise((resolve) => this.#server.close(resolve)),
      new Promise((resolve) => this.#app.close(resolve)),
    ]);
  }
}

export interface RunOptions {
  readonly permit?: ReturnType<TestAuthority['permit']>;
  /** What the connector's end handshakes with: another's when the relay plays the connector. */
  readonly connectorKeys?: TestAuthority['connectorKeys'];
  /** The tunnel that the relay names to the connector. */
  readonly tunnel?: Grant['tunnel'];
  readonly timeoutMs?: number;
}

function closed(socket: Socket): Promise<void> {
  if (socket.closed) return Promise.resolve();
  return new Promise((resolve) => socket.once('close', () => resolve()));
}
