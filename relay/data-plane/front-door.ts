import { createServer, type Server, type Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import { dataProtocol, forwardProtocol, ZtnaError } from '../../protocol/index.ts';
import type { Logger } from '../../protocol/host/index.ts';
import { endpointsOf, limitKeyOf, type Endpoints } from './address.ts';
import { readClientHello } from './client-hello.ts';
import { forward, type ControlDial } from './forward.ts';
import { limits } from './limits.ts';
import { TokenBuckets } from './token-buckets.ts';

export interface FrontDoorOptions {
  readonly host: string;
  readonly port: number;
  /** The way to a control plane, to which everything goes that is not ours. */
  readonly dialControl: ControlDial;
  /** Takes a connection whose ClientHello asks for the data protocol; all bytes are still unread. */
  readonly onData: (socket: Socket, ends: Endpoints) => void;
  /** Takes what another data plane hands on; without it nothing is taken. All bytes are still unread. */
  readonly onForwarded?: (socket: Socket, ends: Endpoints) => void;
  readonly logger: Logger;
  /** For tests: how many strangers of one address are let in at once, and a second for long. */
  readonly strangers?: { readonly burst: number; readonly perSecond: number };
}

/**
 * The one public port. Looks at the ClientHello, keeps what asks for the data protocol and hands the rest on as
 * raw bytes. What is not TLS, stalls, or comes too often from one address is cut without an answer.
 */
export class FrontDoor {
  readonly #options: FrontDoorOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #strangers: TokenBuckets;
  #pending = 0;
  #forwarded = 0;

  private constructor(options: FrontDoorOptions) {
    this.#options = options;
    const { burst = limits.addressBurst, perSecond = limits.addressPerSecond } =
      options.strangers ?? {};
    this.#strangers = new TokenBuckets(burst, perSecond, limits.addressesTracked);
    this.#server = createServer(
      { allowHalfOpen: true, noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 },
      (socket) => {
        this.#accept(socket);
      },
    );
    this.#server.maxConnections = limits.connections;
  }

  /** Begins to accept. Throws ERR_CLIENT_PORT_BUSY when the address is taken. */
  static async open(options: FrontDoorOptions): Promise<FrontDoor> {
    const door = new FrontDoor(options);
    await new Promise<void>((resolve, reject) => {
      door.#server.once('error', (cause: NodeJS.ErrnoException) => {
        const where = `${options.host}:${options.port}`;
        reject(
          cause.code === 'EADDRINUSE'
            ? new ZtnaError('ERR_CLIENT_PORT_BUSY', {
                message: `${where} is taken by another process`,
                hint: `find it with: ss -ltnp 'sport = :${options.port}'`,
                hop: 'relay',
                cause,
              })
            : new ZtnaError('ERR_CONFIG_INVALID', {
                message: `cannot listen on ${where}: ${cause.code ?? cause.message}`,
                hop: 'relay',
                cause,
              }),
        );
      });
      door.#server.listen(
        { host: options.host, port: options.port, backlog: limits.backlog },
        resolve,
      );
    });
    door.#server.removeAllListeners('error');
    door.#server.on('error', (error) => {
      options.logger.error('accept_failed', { message: error.message });
    });
    return door;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address ? address.port : 0;
  }

  get connections(): number {
    return this.#sockets.size;
  }

  /**
   * A stranger proved to be someone: the attempt no longer counts against the address. With `hasChannel` neither does
   * that of the control channel by which it came to what it showed; where that one ends nobody here sees who it is.
   */
  authenticated(remoteAddress: string, { hasChannel = false } = {}): void {
    const key = limitKeyOf(remoteAddress);
    this.#strangers.giveBack(key);
    if (hasChannel) this.#strangers.giveBack(key);
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    const ends = endpointsOf(socket);
    if (
      !ends ||
      this.#pending >= limits.pendingHellos ||
      !this.#strangers.take(limitKeyOf(ends.remoteAddress), performance.now())
    ) {
      socket.resetAndDestroy();
      return;
    }
    this.#readHello(socket, ends);
  }

  #readHello(socket: Socket, ends: Endpoints): void {
    let bytes: Buffer = Buffer.alloc(0);
    this.#pending++;
    const settle = () => {
      clearTimeout(timer);
      this.#pending--;
      socket.off('data', onBytes).off('end', drop).off('error', drop).off('close', settle);
      socket.pause();
    };
    const drop = () => {
      settle();
      socket.on('error', () => undefined);
      socket.destroy();
    };
    const onBytes = (chunk: Buffer) => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
      const view = readClientHello(bytes.subarray(0, limits.helloBytes));
      if (view.state === 'incomplete' && bytes.length < limits.helloBytes) return;
      if (view.state !== 'complete') {
        drop();
        return;
      }
      settle();
      this.#route(socket, ends, bytes, view.protocols);
    };
    const timer = setTimeout(drop, limits.helloMs);
    socket.on('data', onBytes).on('end', drop).on('error', drop).on('close', settle);
  }

  #route(socket: Socket, ends: Endpoints, bytes: Buffer, protocols: readonly string[]): void {
    const { onData, onForwarded } = this.#options;
    if (protocols.includes(dataProtocol)) {
      socket.unshift(bytes);
      onData(socket, ends);
      return;
    }
    if (protocols.includes(forwardProtocol)) {
      socket.unshift(bytes);
      if (onForwarded) onForwarded(socket, ends);
      else socket.destroy(); // no control plane here, and nothing is handed on twice
      return;
    }
    this.handOn(socket, ends, bytes);
  }

  /** Hands a connection on to a control plane, unless there are too many. */
  handOn(socket: Socket, ends: Endpoints, bytes: Buffer): void {
    if (this.#forwarded >= limits.forwarded) {
      socket.on('error', () => undefined);
      if (socket instanceof TLSSocket) socket.destroy();
      else socket.resetAndDestroy();
      return;
    }
    this.#forwarded++;
    const onEnd = (error: Error | undefined): void => {
      this.#forwarded--;
      if (error) this.#options.logger.debug('forward_ended', { message: error.message });
    };
    forward(socket, ends, bytes, this.#options.dialControl, onEnd);
  }

  /** Accepts no more; what is open stays. */
  stopAccepting(): void {
    this.#server.close();
  }

  /** Cuts everything that is still open. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      if (this.#server.listening)
        this.#server.close(() => {
          resolve();
        });
      else resolve();
    });
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
