import type { Socket } from 'node:net';
import { isIP } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { forwardProtocol, ZtnaError, type RelayId } from '../../protocol/index.ts';
import {
  peerIdentity,
  secureServerOptions,
  type Identity,
  type Logger,
} from '../../protocol/host/index.ts';
import type { Endpoints } from './address.ts';
import { limits } from './limits.ts';

export interface ForwardServerOptions {
  readonly identity: Pick<Identity, 'tlsKeyPem' | 'certificatePem' | 'bundle'>;
  /** True for a relay of the deployment as it is now. */
  readonly isRelay: (id: RelayId) => boolean;
  /** A connection for the control plane and whose it is, as the other relay says; nothing of it was read yet. */
  readonly onConnection: (socket: TLSSocket, ends: Endpoints, firstBytes: Buffer) => void;
  /** The address holds a certificate of ours. */
  readonly onAuthenticated: (address: string) => void;
  readonly onRefused: (error: ZtnaError, peer: string | null, address: string) => void;
  readonly logger: Logger;
}

/** The longest PROXY protocol line, version 1. */
const maxLineBytes = 107;

/**
 * Ends TLS for what the other data planes hand on to the control plane beside this one. Only a relay that is listed may
 * say whose connection it is; what it hands on is sealed for the control plane and passes untouched.
 */
export class ForwardServer {
  readonly #options: ForwardServerOptions;
  readonly #tls: Server;
  readonly #addresses = new WeakMap<Socket, string>();

  constructor(options: ForwardServerOptions) {
    this.#options = options;
    this.#tls = createServer(tlsOptions(options.identity), (socket) => {
      this.#secured(socket);
    });
    this.#tls.on('tlsClientError', (error: NodeJS.ErrnoException, socket: TLSSocket) => {
      options.logger.debug('forward_refused', { message: error.message });
      socket.destroy();
    });
  }

  /** Uses a newer certificate or newer authorities for connections from now on. */
  reload(identity: ForwardServerOptions['identity']): void {
    this.#tls.setSecureContext(tlsOptions(identity));
  }

  /** Takes a connection whose bytes are all unread. */
  accept(socket: Socket, address: string): void {
    this.#addresses.set(socket, address);
    this.#tls.emit('connection', socket);
  }

  #secured(socket: TLSSocket): void {
    const raw = (socket as TLSSocket & { readonly _parent?: Socket })._parent;
    const address = (raw && this.#addresses.get(raw)) ?? 'unknown';
    socket.on('error', () => undefined);
    let peer: string | null = null;
    try {
      const { role, id } = peerIdentity(socket);
      peer = id;
      if (role !== 'data-plane') throw new ZtnaError('ERR_IDENTITY_ROLE');
      if (!this.#options.isRelay(id as RelayId)) {
        throw new ZtnaError('ERR_IDENTITY_REVOKED', { reason: 'relay_not_listed' });
      }
    } catch (error) {
      this.#options.onRefused(error as ZtnaError, peer, address);
      socket.destroy();
      return;
    }
    this.#options.onAuthenticated(address);
    this.#readLine(socket);
  }

  #readLine(socket: TLSSocket): void {
    let seen: Buffer = Buffer.alloc(0);
    const settle = () => {
      clearTimeout(timer);
      socket.off('data', onData).off('end', drop).off('close', settle);
      socket.pause();
    };
    const drop = () => {
      settle();
      socket.destroy();
    };
    const onData = (chunk: Buffer) => {
      seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
      const end = seen.subarray(0, maxLineBytes).indexOf('\r\n');
      if (end === -1 && seen.length < maxLineBytes) return;
      const ends = end === -1 ? undefined : readProxyLine(seen.toString('latin1', 0, end));
      if (!ends) {
        drop();
        return;
      }
      settle();
      this.#options.onConnection(socket, ends, seen.subarray(end + 2));
    };
    const timer = setTimeout(drop, limits.requestMs);
    socket.on('data', onData).on('end', drop).on('close', settle);
  }
}

/** The ends that a PROXY line of our own form names; undefined for any other. */
export function readProxyLine(line: string): Endpoints | undefined {
  const [, family, remoteAddress = '', localAddress = '', remotePort, localPort] =
    /^PROXY TCP([46]) ([0-9a-fA-F.:]{2,45}) ([0-9a-fA-F.:]{2,45}) (\d{1,5}) (\d{1,5})$/.exec(
      line,
    ) ?? [];
  const ends = {
    remoteAddress,
    localAddress,
    remotePort: Number(remotePort),
    localPort: Number(localPort),
  };
  const isSound =
    String(isIP(remoteAddress)) === family &&
    String(isIP(localAddress)) === family &&
    ends.remotePort <= 65_535 &&
    ends.localPort <= 65_535;
  return isSound ? ends : undefined;
}

function tlsOptions({ tlsKeyPem, certificatePem, bundle }: ForwardServerOptions['identity']) {
  return secureServerOptions({
    keyPem: tlsKeyPem,
    certificatePem,
    clientAuthorities: bundle.authorities,
    alpn: [forwardProtocol],
    handshakeTimeoutMs: limits.handshakeMs,
  });
}
