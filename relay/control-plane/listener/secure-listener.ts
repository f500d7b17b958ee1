import { chmod, mkdir, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { controlProtocol, enrolmentProtocol, toZtnaError } from '../../../protocol/index.ts';
import {
  peerIdentity,
  secureServerOptions,
  type Logger,
  type PeerIdentity,
} from '../../../protocol/host/index.ts';
import { handleBrowser } from './landing-page.ts';
import { readProxyLine } from './proxy-line.ts';

/** Everything before the first HTTP byte must be over within this time. */
const beginTimeoutMs = 5_000;
/** Connections at once, in all; the data plane has its own bound per stranger in front. */
const maxConnections = 20_000;

/** Who opened a connection that a client certificate vouches for. */
export interface ControlPeer extends PeerIdentity {
  readonly address: string;
  readonly certificateUntilMs: number;
}

export interface SecureListenerOptions {
  readonly socketPath: string;
  readonly keyPem: string;
  readonly certificatePem: string;
  readonly authorities: readonly string[];
  readonly logger: Logger;
  /** An upgrade on ALPN `ztna-control/1` by a holder of one of our certificates. */
  readonly onControl: (
    peer: ControlPeer,
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
  ) => void;
  /** A request on ALPN `ztna-enrol/1`. */
  readonly onEnrolment: (
    address: string,
    request: IncomingMessage,
    response: ServerResponse,
  ) => void;
  /** A connection that was refused before it could say anything. */
  readonly onRefused: (reason: string, address: string) => void;
}

export interface SecureListener {
  /** New connections get this certificate. */
  useCertificate(keyPem: string, certificatePem: string): void;
  stop(): Promise<void>;
}

/**
 * Listens on a unix socket for what the data plane passes on: one PROXY line, then TLS that ends here. ALPN
 * decides what the connection may be; a control channel must show a certificate of ours before any HTTP byte
 * of it is answered.
 */
export async function startSecureListener(options: SecureListenerOptions): Promise<SecureListener> {
  const { socketPath, logger } = options;
  const addresses = new WeakMap<Duplex, string>();
  const sockets = new Set<Socket>();

  const tlsOptions = secureServerOptions({
    keyPem: options.keyPem,
    certificatePem: options.certificatePem,
    clientAuthorities: options.authorities,
    alpn: [controlProtocol, enrolmentProtocol, 'http/1.1'],
    handshakeTimeoutMs: beginTimeoutMs,
  });
  const https = createHttpsServer({
    ...tlsOptions,
    // Asked for always, demanded below: one listener serves those who have none yet.
    rejectUnauthorized: false,
    headersTimeout: beginTimeoutMs,
    requestTimeout: 2 * beginTimeoutMs,
    keepAliveTimeout: beginTimeoutMs,
    maxHeaderSize: 8_192,
  });
  https.maxHeadersCount = 64;

  const addressOf = (socket: Duplex) => addresses.get(socket) ?? 'unknown';
  const peers = new WeakMap<Duplex, ControlPeer>();
  const protocols = new WeakMap<Duplex, string | false | null>();

  https.prependListener('secureConnection', (socket: TLSSocket) => {
    const raw = rawSocketOf(socket);
    const address = raw ? addressOf(raw) : 'unknown';
    addresses.set(socket, address);
    protocols.set(socket, socket.alpnProtocol);
    if (socket.alpnProtocol !== controlProtocol) return;
    try {
      const certificate = socket.getPeerX509Certificate();
      peers.set(socket, {
        ...peerIdentity(socket),
        address,
        certificateUntilMs: certificate ? Date.parse(certificate.validTo) : 0,
      });
    } catch (error) {
      options.onRefused(toZtnaError(error).reason ?? 'certificate_refused', address);
      socket.destroy();
    }
  });
  https.on('tlsClientError', (error, socket) => {
    logger.debug('tls_refused', { error: error.message });
    socket.destroy();
  });
  https.on('clientError', (_error, socket) => {
    socket.destroy();
  });
  https.on('request', (request, response) => {
    const { socket } = request;
    const protocol = protocols.get(socket);
    if (socket.destroyed) return;
    if (protocol === enrolmentProtocol) {
      options.onEnrolment(addressOf(socket), request, response);
    } else if (protocol === controlProtocol) {
      response.writeHead(404, { connection: 'close' }).end();
    } else handleBrowser(request, response);
  });
  https.on('upgrade', (request, socket, head) => {
    const peer = peers.get(socket);
    if (peer) options.onControl(peer, request, socket, head);
    else socket.destroy();
  });

  const listener = createServer({ pauseOnConnect: false, allowHalfOpen: false }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {
      socket.destroy();
    });
    readProxyLine(socket, beginTimeoutMs).then(
      ({ address }) => {
        addresses.set(socket, address);
        https.emit('connection', socket);
      },
      (error: unknown) => {
        logger.debug('proxy_line_refused', { code: toZtnaError(error).code });
        socket.destroy();
      },
    );
  });
  listener.maxConnections = maxConnections;

  const directory = dirname(socketPath);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await chmod(directory, 0o700);
  await rm(socketPath, { force: true });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(socketPath, resolve);
  });
  await chmod(socketPath, 0o600);

  let stopping: Promise<void> | undefined;
  return {
    useCertificate: (keyPem, certificatePem) => {
      https.setSecureContext({ ...tlsOptions, key: keyPem, cert: certificatePem });
    },
    stop: () =>
      (stopping ??= new Promise((resolve) => {
        listener.close(() => {
          resolve();
        });
        https.closeAllConnections();
        for (const socket of sockets) socket.destroy();
      })),
  };
}

/** The socket below a TLS socket that node's server wrapped; it carries the address that the PROXY line told. */
function rawSocketOf(socket: TLSSocket): Socket | undefined {
  return (socket as TLSSocket & { readonly _parent?: Socket })._parent;
}
