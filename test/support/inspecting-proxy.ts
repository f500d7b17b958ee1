import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { createServer, type TlsOptions } from 'node:tls';
import type { TestCertificate } from './pki.ts';

/** Something on the way that ends TLS with a certificate of its own, and keeps what it was sent. */
export class InspectingProxy {
  /** Everything that diallers said inside TLS. */
  readonly received: Buffer[] = [];
  readonly url: string;
  readonly #server: ReturnType<typeof createServer>;
  readonly #sockets = new Set<Socket>();

  static async start(
    certificate: TestCertificate,
    options: TlsOptions = {},
    host = '127.0.0.1',
  ): Promise<InspectingProxy> {
    const server = createServer({
      key: certificate.keyPem,
      cert: certificate.certificatePem,
      ...options,
    });
    server.listen(0, host);
    await once(server, 'listening');
    return new InspectingProxy(server);
  }

  private constructor(server: ReturnType<typeof createServer>) {
    this.#server = server;
    const { address, port } = server.address() as AddressInfo;
    this.url = `https://${address}:${port}`;
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    server.on('tlsClientError', () => undefined);
    server.on('secureConnection', (socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (chunk: Buffer) => this.received.push(chunk));
    });
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
