import type { TLSSocket } from 'node:tls';
import {
  dataProtocol,
  errorRow,
  grantHeader,
  toZtnaError,
  tunnelPath,
  ZtnaError,
} from '../../protocol/index.ts';
import {
  dialFirst,
  dialForWebSocket,
  dialWebSocket,
  type DialOptions,
  type Identity,
} from '../../protocol/host/index.ts';
import { Path } from './path.ts';
import type { Permit } from './permit.ts';
import type { RelayBook } from './relay-book.ts';
import { SpareSocket } from './spare-socket.ts';

type Relay = Permit['relays'][number];

export interface PathOpenerOptions {
  readonly identity: () => Identity;
  readonly book: RelayBook;
  readonly signal: AbortSignal;
}

/** Dials data planes and carries out the handshake of a path through them. */
export class PathOpener {
  readonly #options: PathOpenerOptions;
  #spare: SpareSocket | undefined;

  constructor(options: PathOpenerOptions) {
    this.#options = options;
  }

  /** Dials a relay before there is a permit, in the hope that it will name it. */
  dialAhead(url: string): void {
    this.#spare = new SpareSocket(this.#dial(url));
  }

  /** Notes why a path by this relay was lost. */
  noteLost(url: string, error: ZtnaError): void {
    if (isOfRelay(error)) this.#options.book.noteFailed(url);
  }

  /** Closes what was dialled ahead. */
  drop(): void {
    this.#spare?.drop();
  }

  /**
   * Opens a path on the best of the permit's relays that can be reached: a relay that refuses is followed by the next at
   * once, one that is silent gets company after a second. Throws why not.
   */
  async open(permit: Permit): Promise<Path> {
    const { book } = this.#options;
    let lastError = new ZtnaError('ERR_CONNECTOR_OFFLINE', { hop: 'connector' });
    let left = book.order(permit.relays);
    while (left.length > 0) {
      const failed = new Set<Relay>();
      let opened: Relay | undefined;
      try {
        const { candidate: relay, connection: socket } = await this.#connect(left, failed);
        opened = relay;
        failed.add(relay); // unless its path comes about, it is tried no more
        const path = await this.#openOn(relay, socket, permit);
        book.noteInUse(relay.url);
        return path;
      } catch (error) {
        lastError = toZtnaError(error);
        if (errorRow(lastError.code).retry !== 'backoff') break;
        if (opened && isOfRelay(lastError)) book.noteFailed(opened.url);
        if (failed.size === 0) break;
        left = left.filter((relay) => !failed.has(relay));
      }
    }
    throw lastError;
  }

  #dial(url: string): DialOptions {
    const identity = this.#options.identity();
    return { url, alpn: dataProtocol, serverRole: 'data-plane', identity };
  }

  /** A connection to the first of these relays that takes one. Those that do not are added to `failed`. */
  #connect(
    relays: readonly Relay[],
    failed: Set<Relay>,
  ): Promise<{ readonly candidate: Relay; readonly connection: TLSSocket }> {
    const { signal, book } = this.#options;
    return dialFirst({
      candidates: relays,
      dial: async ({ url }, attempt) => {
        const dial = this.#dial(url);
        const spare = this.#spare;
        this.#spare = undefined;
        const ahead = await spare?.take(dial);
        if (ahead) return ahead;
        const startedAtMs = performance.now();
        const socket = await dialForWebSocket({ ...dial, signal: attempt });
        book.noteConnected(url, performance.now() - startedAtMs);
        return socket;
      },
      discard: (socket) => socket.destroy(),
      onFailed: (relay, error) => {
        failed.add(relay);
        if (isOfRelay(error)) book.noteFailed(relay.url);
      },
      signal,
    });
  }

  async #openOn(relay: Relay, socket: TLSSocket, permit: Permit): Promise<Path> {
    const identity = this.#options.identity();
    const webSocket = await dialWebSocket({
      ...this.#dial(relay.url),
      socket,
      path: tunnelPath,
      headers: { [grantHeader]: permit.verified.grant.statement },
      signal: this.#options.signal,
    });
    return Path.open({ permit: permit.verified, relay, identity, webSocket });
  }
}

/** True when the relay, or the way to it, may be what failed. */
function isOfRelay({ code }: ZtnaError): boolean {
  if (code === 'ERR_CONNECTOR_OFFLINE') return false;
  return errorRow(code).family === 'unavailable' || code === 'ERR_RECORD_TAMPERED';
}
