import { chmod, mkdir, rm } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import {
  aheadProtocol,
  controlProtocol,
  enrolmentProtocol,
  toZtnaError,
  ZtnaError,
} from '../../../protocol/index.ts';
import {
  peerIdentity,
  secureServerOptions,
  type Logger,
  type PeerIdentity,
} from '../../../protocol/host/index.ts';
import { Turns } from '../turns.ts';
import type { CertificatePair } from './page-certificate.ts';
import { peekProtocols } from './peek-protocols.ts';
import { localAddress, readProxyLine } from './proxy-line.ts';

/** Each step before a request is understood must be over within this time: the line, TLS, the request's head. */
const beginTimeoutMs = 5_000;
/** Its body, where it has one, must be over within this. */
const bodyTimeoutMs = 10_000;
/** And the answer within this: hashing a password takes its time. */
const answerTimeoutMs = 20_000;
/**
 * Newcomers at once, each until it is known who it is, and a device until its tunnels are taken up again: all of that
 * shares a processor or two, so more of them only take longer each, until they give up and begin again. A crowd that
 * comes back waits in front, in turn, where waiting costs nothing.
 */
const usualTurns = {
  newcomers: { atOnce: 64, waiting: 8_192, waitMs: 60_000 },
  /**
   * The same for browsers and other systems: anybody may come in any number, and each handshake takes a millisecond or two, in
   * which nothing else happens here. So few at once that devices wait for none of them.
   */
  pages: { atOnce: 4, waiting: 2_048, waitMs: 30_000 },
  /** The same for those whom devices wait for. */
  ahead: { atOnce: 16, waiting: 256, waitMs: 5_000 },
  /** Turns end so long after they began, and a device's so long after TLS, whatever it has come to: who stalls holds up nobody. */
  handshakeMs: 2_000,
  deviceMs: 4_000,
  /** What takes our time in a handshake comes first, so the next may begin long before a far browser has answered. */
  pagesMs: 50,
};
const backlog = 4_096;
/** The one that comes first is taken where both are offered. */
const controlProtocols = [aheadProtocol, controlProtocol];
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
  /** What those are shown who offer no protocol of ours; null: the same as all others. */
  readonly pages?: CertificatePair | null;
  readonly logger: Logger;
  /**
   * An upgrade by a holder of one of our certificates, on ALPN `ztna-control/1`, or on `ztna-control-ahead/1` by one that
   * is no device. `endTurn` lets the next newcomer in, where that has not happened yet.
   */
  readonly onControl: (
    peer: ControlPeer,
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    endTurn: () => void,
  ) => void;
  /** A request on ALPN `ztna-enrol/1`. */
  readonly onEnrolment: (
    address: string,
    request: IncomingMessage,
    response: ServerResponse,
  ) => void;
  /** A request on ALPN `http/1.1`; answers false for one that nobody knows. */
  readonly onBrowser?: (
    address: string,
    request: IncomingMessage,
    response: ServerResponse,
  ) => boolean;
  /** For tests: who waits for whom, and how long. */
  readonly turns?: typeof usualTurns;
  /** A control connection whose certificate was refused, before it could say anything. */
  readonly onRefused: (reason: string, address: string) => void;
}

export interface SecureListener {
  /** New connections are opened by certificates of these. */
  useAuthorities(authorities: readonly string[]): void;
  /** New connections of browsers and other systems get this one. Only where there was one from the start. */
  usePageCertificate(pair: CertificatePair): void;
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

  const addressOf = (socket: Duplex) => addresses.get(socket) ?? 'unknown';
  const peers = new WeakMap<Duplex, ControlPeer>();
  const limits = options.turns ?? usualTurns;
  const turns = new Turns(limits.newcomers);
  const turnsAhead = new Turns(limits.ahead);
  const turnsOfPages = new Turns(limits.pages);
  const turnEnds = new WeakMap<Duplex, () => void>();
  const turnTimers = new WeakMap<Duplex, NodeJS.Timeout>();
  const endTurn = (raw: Duplex | undefined) => {
    if (!raw) return;
    clearTimeout(turnTimers.get(raw));
    turnEnds.get(raw)?.();
  };
  const protocols = new WeakMap<Duplex, string | false | null>();
  // Node watches the time that requests take only for a server that listens by itself.
  const deadlines = new WeakMap<Duplex, NodeJS.Timeout>();
  const endDeadline = (socket: Duplex) => {
    clearTimeout(deadlines.get(socket));
  };
  const setDeadline = (socket: Duplex, timeoutMs: number) => {
    endDeadline(socket);
    deadlines.set(
      socket,
      setTimeout(() => socket.destroy(), timeoutMs),
    );
  };

  const serverFor = (
    alpn: readonly string[],
    clientAuthorities: readonly string[] | null,
    pair: CertificatePair = options,
  ) => {
    const server = createHttpsServer({
      ...tlsOptionsFor(pair, alpn, clientAuthorities),
      maxHeaderSize: 8_192,
    });
    server.maxHeadersCount = 64;
    server.prependListener('secureConnection', (socket: TLSSocket) => {
      const raw = rawSocketOf(socket);
      if (peers.get(socket)?.role === 'device') {
        clearTimeout(raw && turnTimers.get(raw));
        if (raw) turnTimers.set(raw, setTimeout(endTurn, limits.deviceMs, raw));
      } else endTurn(raw);
      addresses.set(socket, raw ? addressOf(raw) : 'unknown');
      protocols.set(socket, socket.alpnProtocol);
      setDeadline(socket, beginTimeoutMs);
      socket.once('close', () => {
        endDeadline(socket);
      });
    });
    server.on('request', (request) => {
      const { socket } = request;
      setDeadline(socket, bodyTimeoutMs);
      request.once('end', () => {
        setDeadline(socket, answerTimeoutMs);
      });
    });
    server.on('upgrade', (_request, socket) => {
      endDeadline(socket);
    });
    server.on('tlsClientError', (error: NodeJS.ErrnoException, socket) => {
      logger.debug('tls_refused', { error: error.message });
      const verdict: unknown = socket.authorizationError; // OpenSSL's code, whatever the types say
      const isVerdict = typeof verdict === 'string';
      // A peer that merely went away was not refused.
      endTurn(rawSocketOf(socket));
      if (clientAuthorities && (isVerdict || error.code !== 'ECONNRESET')) {
        const raw = rawSocketOf(socket);
        const reason = isVerdict ? verdict : (error.code ?? 'tls_refused');
        options.onRefused(reason.toLowerCase(), raw ? addressOf(raw) : 'unknown');
      }
      socket.destroy();
    });
    server.on('clientError', (_error, socket) => {
      socket.destroy();
    });
    return server;
  };

  // A browser that is asked for a certificate bothers its user, so only control channels are.
  const control = serverFor(controlProtocols, options.authorities);
  const open = serverFor([enrolmentProtocol, 'http/1.1'], null);
  const pages = options.pages ? serverFor(['http/1.1'], null, options.pages) : null;

  control.prependListener('secureConnection', (socket: TLSSocket) => {
    const address = addressOf(socket);
    try {
      const certificate = socket.getPeerX509Certificate();
      const identity = peerIdentity(socket);
      if (identity.role === 'device' && socket.alpnProtocol === aheadProtocol) {
        throw new ZtnaError('ERR_IDENTITY_ROLE', { reason: 'role_wrong' });
      }
      peers.set(socket, {
        ...identity,
        address,
        certificateUntilMs: certificate ? Date.parse(certificate.validTo) : 0,
      });
    } catch (error) {
      options.onRefused(toZtnaError(error).reason ?? 'certificate_refused', address);
      socket.destroy();
    }
  });
  control.on('request', (request, response) => {
    if (!request.socket.destroyed) response.writeHead(404, { connection: 'close' }).end();
  });
  control.on('upgrade', (request, socket, head) => {
    const peer = peers.get(socket);
    if (!peer) {
      socket.destroy();
      return;
    }
    options.onControl({ ...peer, address: addressOf(socket) }, request, socket, head, () => {
      endTurn(rawSocketOf(socket));
    });
  });
  for (const server of pages ? [open, pages] : [open]) {
    server.on('request', (request, response) => {
      const { socket } = request;
      if (protocols.get(socket) === enrolmentProtocol) {
        options.onEnrolment(addressOf(socket), request, response);
      } else if (options.onBrowser?.(addressOf(socket), request, response) !== true) {
        response.writeHead(404, { connection: 'close', 'content-type': 'text/plain' });
        response.end('not found\n');
      }
    });
    server.on('upgrade', (_request, socket) => {
      socket.destroy();
    });
  }
  const serverOf = (offered: readonly string[]) => {
    if (controlProtocols.some((protocol) => offered.includes(protocol))) return control;
    return pages && !offered.includes(enrolmentProtocol) ? pages : open;
  };

  const turnsFor = (offered: readonly string[]) => {
    if (offered.includes(aheadProtocol)) return turnsAhead;
    const isOurs = [...controlProtocols, enrolmentProtocol].some((one) => offered.includes(one));
    return isOurs ? turns : turnsOfPages;
  };

  const takeTurn = async (socket: Socket, among: Turns): Promise<void> => {
    const gone = new AbortController();
    socket.once('close', () => {
      gone.abort();
      endTurn(socket);
    });
    if (socket.destroyed) gone.abort();
    turnEnds.set(socket, await among.begin(gone.signal));
    const longestMs = among === turnsOfPages ? limits.pagesMs : limits.handshakeMs;
    turnTimers.set(socket, setTimeout(endTurn, longestMs, socket));
    if (socket.destroyed) endTurn(socket);
  };

  const accept = async (socket: Socket): Promise<void> => {
    try {
      const { address } = await readProxyLine(socket, beginTimeoutMs);
      addresses.set(socket, address);
      const { offered, putBack } = await peekProtocols(socket, beginTimeoutMs);
      // The data plane of this host goes ahead of everybody.
      if (address !== localAddress) await takeTurn(socket, turnsFor(offered));
      putBack();
      serverOf(offered).emit('connection', socket);
    } catch (error) {
      logger.debug('connection_refused', { code: toZtnaError(error).code });
      socket.destroy();
    }
  };
  const listener = createServer({ pauseOnConnect: false, allowHalfOpen: false }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    socket.on('error', () => {
      socket.destroy();
    });
    void accept(socket);
  });
  listener.maxConnections = maxConnections;

  const directory = dirname(socketPath);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await chmod(directory, 0o700);
  await rm(socketPath, { force: true });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen({ path: socketPath, backlog }, resolve);
  });
  await chmod(socketPath, 0o600);

  let current = options;
  let stopping: Promise<void> | undefined;
  return {
    useAuthorities: (authorities) => {
      current = { ...current, authorities };
      control.setSecureContext(tlsOptionsFor(current, controlProtocols, authorities));
    },
    usePageCertificate: (pair) => {
      pages?.setSecureContext(tlsOptionsFor(pair, ['http/1.1'], null));
    },
    useCertificate: (keyPem, certificatePem) => {
      current = { ...current, keyPem, certificatePem };
      control.setSecureContext(tlsOptionsFor(current, controlProtocols, current.authorities));
      open.setSecureContext(tlsOptionsFor(current, [enrolmentProtocol, 'http/1.1'], null));
    },
    stop: () =>
      (stopping ??= new Promise((resolve) => {
        listener.close(() => {
          resolve();
        });
        control.closeAllConnections();
        open.closeAllConnections();
        pages?.closeAllConnections();
        for (const socket of sockets) socket.destroy();
      })),
  };
}

function tlsOptionsFor(
  { keyPem, certificatePem }: CertificatePair,
  alpn: readonly string[],
  clientAuthorities: readonly string[] | null,
) {
  const handshakeTimeoutMs = beginTimeoutMs;
  return secureServerOptions({
    keyPem,
    certificatePem,
    clientAuthorities,
    alpn,
    handshakeTimeoutMs,
  });
}

/** The socket below a TLS socket that node's server wrapped; it carries the address that the PROXY line told. */
function rawSocketOf(socket: Duplex): Socket | undefined {
  return (socket as Duplex & { readonly _parent?: Socket })._parent;
}
