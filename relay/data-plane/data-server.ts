import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer as createTlsServer, TLSSocket, type Server as TlsServer } from 'node:tls';
import { WebSocketServer, type WebSocket } from 'ws';
import { dataProtocol, toZtnaError, ZtnaError } from '../../protocol/index.ts';
import {
  certificateLife,
  http,
  peerIdentity,
  secureServerOptions,
  webSocketOptions,
  type Identity,
  type Logger,
  type PeerIdentity,
} from '../../protocol/host/index.ts';
import { refuse } from './close.ts';
import { limits } from './limits.ts';

/** Whom a valid certificate names, and until when. */
export interface Peer extends PeerIdentity {
  readonly address: string;
  /** End of the certificate, in milliseconds. */
  readonly certificateUntilMs: number;
}

/** A data WebSocket of an authenticated peer, not read yet. */
export interface DataSocket {
  readonly ws: WebSocket;
  readonly peer: Peer;
  readonly path: string;
  /** The header of that name, if it was sent exactly once. */
  header(name: string): string | undefined;
}

export interface DataServerOptions {
  readonly identity: Pick<Identity, 'tlsKeyPem' | 'certificatePem' | 'bundle'>;
  readonly onSocket: (socket: DataSocket) => void;
  /** A TLS handshake or an upgrade that was refused before anyone was known. */
  readonly onRefused: (error: ZtnaError, address: string) => void;
  /** The address proved to hold a certificate of ours. */
  readonly onAuthenticated: (address: string) => void;
  readonly logger: Logger;
}

/** Ends TLS for the data protocol: client certificate required, one WebSocket per connection, nothing else. */
export class DataServer {
  readonly #options: DataServerOptions;
  readonly #tls: TlsServer;
  readonly #http = http.createServer({
    maxHeaderSize: limits.requestHeaderBytes,
    keepAlive: false,
    insecureHTTPParser: false,
  });
  readonly #ws = new WebSocketServer({
    ...webSocketOptions(dataProtocol),
    noServer: true,
    clientTracking: false,
    maxFragments: limits.messageFragments,
    closeTimeout: limits.closeHandshakeMs,
  } as ConstructorParameters<typeof WebSocketServer>[0]);

  constructor(options: DataServerOptions) {
    this.#options = options;
    this.#http.maxHeadersCount = limits.requestHeaders;
    this.#http.on('request', (_request, response) => {
      response.writeHead(404, { connection: 'close' }).end();
    });
    this.#http.on('upgrade', (request, socket, head) => {
      this.#upgrade(request, socket, head);
    });
    this.#http.on('clientError', (_error, socket) => {
      socket.destroy();
    });
    this.#tls = createTlsServer(tlsOptions(options.identity), (socket) => {
      this.#secured(socket);
    });
    this.#tls.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      this.#handshakeFailed(error, socket);
    });
  }

  /** Uses a newer certificate or newer authorities for connections from now on. */
  reload(identity: DataServerOptions['identity']): void {
    this.#tls.setSecureContext(tlsOptions(identity));
  }

  /** Takes an accepted connection from `address` whose bytes are still unread. */
  accept(socket: Socket, address: string): void {
    addresses.set(socket, address);
    this.#tls.emit('connection', socket);
  }

  #handshakeFailed(error: NodeJS.ErrnoException, socket: TLSSocket): void {
    const verdict: unknown = socket.authorizationError; // OpenSSL's code, whatever the types say
    const hasVerdict = typeof verdict === 'string';
    // A peer that merely went away was not refused.
    if (!hasVerdict && error.code === 'ECONNRESET') return;
    const reason = hasVerdict ? verdict : (error.code ?? 'handshake_failed');
    this.#options.onRefused(
      new ZtnaError('ERR_IDENTITY_UNAUTHENTICATED', { reason: toReason(reason), cause: error }),
      addressOf(socket),
    );
    socket.destroy();
  }

  #secured(socket: TLSSocket): void {
    socket.on('error', () => undefined);
    if (!socket.authorized || socket.alpnProtocol !== dataProtocol) {
      socket.destroy();
      return;
    }
    this.#options.onAuthenticated(addressOf(socket));
    const timer = setTimeout(() => socket.destroy(), limits.requestMs);
    deadlines.set(socket, timer);
    socket.once('close', () => {
      clearTimeout(timer);
    });
    this.#http.emit('connection', socket);
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (!(socket instanceof TLSSocket)) {
      socket.destroy();
      return;
    }
    clearTimeout(deadlines.get(socket));
    const address = addressOf(socket);
    let peer: Peer;
    try {
      peer = readPeer(socket, address);
    } catch (error) {
      this.#options.onRefused(toZtnaError(error), address);
      this.#ws.handleUpgrade(request, socket, head, (ws) => {
        refuse(ws, error);
      });
      return;
    }
    this.#ws.handleUpgrade(request, socket, head, (ws) => {
      ws.pause();
      ws.on('error', (error) => {
        this.#options.logger.debug('data_socket_failed', { peer: peer.id, message: error.message });
      });
      this.#options.onSocket({
        ws,
        peer,
        path: request.url ?? '',
        header: (name) => {
          const values = request.headersDistinct[name];
          return values?.length === 1 ? values[0] : undefined;
        },
      });
    });
  }
}

function tlsOptions(identity: DataServerOptions['identity']) {
  return secureServerOptions({
    keyPem: identity.tlsKeyPem,
    certificatePem: identity.certificatePem,
    clientAuthorities: identity.bundle.authorities,
    alpn: [dataProtocol],
    handshakeTimeoutMs: limits.handshakeMs,
  });
}

/** By raw socket: a TLS socket that failed no longer knows its own. */
const addresses = new WeakMap<Socket, string>();

function addressOf(socket: TLSSocket): string {
  const { _parent: raw } = socket as TLSSocket & { readonly _parent?: Socket };
  return (raw && addresses.get(raw)) ?? '';
}

const deadlines = new WeakMap<TLSSocket, NodeJS.Timeout>();

function readPeer(socket: TLSSocket, address: string): Peer {
  const { role, id } = peerIdentity(socket);
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) throw new ZtnaError('ERR_IDENTITY_UNAUTHENTICATED');
  return { role, id, address, certificateUntilMs: certificateLife(certificate).notAfterMs };
}

/** OpenSSL's and Node's words for a failure, as a reason. */
function toReason(text: string): string {
  const reason = text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '_')
    .slice(0, 64);
  return /^[a-z]/.test(reason) ? reason : 'handshake_failed';
}
