import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { once } from 'node:events';

/** A TCP port that hands everything on to another, until it is told to lose connections without a word. */
export class HalfOpenLink {
  readonly port: number;
  readonly #server: Server;
  readonly #joined = new Set<readonly [Socket, Socket]>();

  static async start(targetPort: number): Promise<HalfOpenLink> {
    const server = createServer({ allowHalfOpen: true });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new HalfOpenLink(server, targetPort);
  }

  private constructor(server: Server, targetPort: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (near) => {
      const far = connect({ host: '127.0.0.1', port: targetPort, allowHalfOpen: true });
      const pair = [near, far] as const;
      this.#joined.add(pair);
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on('error', () => to.destroy());
        from.on('close', () => {
          this.#joined.delete(pair);
        });
        from.pipe(to);
      }
    });
  }

  /**
   * What is connected now stays so, but nothing passes any more, neither bytes nor ends: as when a machine on the way
   * forgets its connections. New ones pass as ever.
   */
  freeze(): void {
    for (const [near, far] of this.#joined) {
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.unpipe(to);
        from.removeAllListeners('error').on('error', () => undefined);
        from.pause();
      }
    }
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const pair of this.#joined) for (const socket of pair) socket.destroy();
    await closed;
  }
}
