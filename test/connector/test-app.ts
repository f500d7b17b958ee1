import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';

/** A private app on loopback that a test plays. */
export class TestApp {
  readonly port: number;
  readonly connections: Socket[] = [];
  readonly #server: Server;
  readonly #waiters: ((socket: Socket) => void)[] = [];

  static async start(): Promise<TestApp> {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new TestApp(server);
  }

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (socket) => {
      socket.on('error', () => undefined);
      this.connections.push(socket);
      this.#waiters.shift()?.(socket);
    });
  }

  /** The next connection. */
  next(): Promise<Socket> {
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.connections) socket.destroy();
    await closed;
  }
}

/** How a connection ended, as the app sees it: `end`, or the code of its error. */
export function appOutcome(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once('end', () => {
      resolve('end');
    });
    socket.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code ?? error.message);
    });
    socket.resume();
  });
}
