import { once } from 'node:events';
import { createServer as createHttpServer, type IncomingMessage } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { connect, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TestCertificate } from './pki.ts';

export interface ConnectProxyOptions {
  /** `user:password` that a client must show. */
  readonly credentials?: string;
  /** Speaks TLS to its clients. */
  readonly certificate?: TestCertificate;
  /** Where a `host:port`, or a host at the port asked for, really leads; the rest is dialled as it was asked for. */
  readonly routes?: Readonly<Record<string, string>>;
  /** Answers every CONNECT with this instead of connecting. */
  readonly answer?: string;
}

/** A real HTTP proxy on loopback that does CONNECT alone. */
export class ConnectProxy {
  /** Every target that was asked for, in order, whether it was allowed or not. */
  readonly targets: string[] = [];
  readonly port: number;
  readonly #server: ReturnType<typeof createHttpServer>;
  readonly #sockets = new Set<Duplex>();

  static async start(options: ConnectProxyOptions = {}): Promise<ConnectProxy> {
    const server = options.certificate
      ? createHttpsServer({
          key: options.certificate.keyPem,
          cert: options.certificate.certificatePem,
        })
      : createHttpServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new ConnectProxy(server, options);
  }

  private constructor(server: ReturnType<typeof createHttpServer>, options: ConnectProxyOptions) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on('connection', (socket: Duplex) => {
      this.#keep(socket);
    });
    server.on('connect', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      this.#connect(options, request, socket, head);
    });
  }

  #connect(
    options: ConnectProxyOptions,
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
  ): void {
    const target = request.url ?? '';
    this.targets.push(target);
    socket.on('error', () => undefined);
    const shown = request.headers['proxy-authorization'];
    const { credentials, answer, routes } = options;
    const wanted = credentials && `Basic ${Buffer.from(credentials).toString('base64')}`;
    if (answer !== undefined) {
      socket.end(answer);
      return;
    }
    if (wanted !== undefined && shown !== wanted) {
      socket.end(
        'HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm="test"\r\ncontent-length: 0\r\n\r\n',
      );
      return;
    }
    const [, name = '', asked = ''] = /^(.*):(\d+)$/.exec(target) ?? [];
    const route = routes?.[target] ?? `${routes?.[name] ?? name}:${asked}`;
    const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(route) ?? [];
    const onward: Socket = connect({ host: host.replace(/^\[|\]$/g, ''), port: Number(port) });
    this.#keep(onward);
    onward.once('connect', () => {
      socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
      onward.write(head);
      onward.pipe(socket).pipe(onward);
    });
    onward.on('error', () => {
      socket.end('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n');
    });
    socket.once('close', () => onward.destroy());
    onward.once('close', () => socket.destroy());
  }

  #keep(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  /** Connections through it, or to it, at this moment. */
  get connections(): number {
    return this.#sockets.size;
  }

  async stop(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
