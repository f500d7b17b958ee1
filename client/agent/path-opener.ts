import {
  dataProtocol,
  errorRow,
  grantHeader,
  toZtnaError,
  tunnelPath,
  ZtnaError,
} from '../../protocol/index.ts';
import {
  dialForWebSocket,
  dialWebSocket,
  type DialOptions,
  type Identity,
} from '../../protocol/host/index.ts';
import { Path } from './path.ts';
import type { Permit } from './permit.ts';
import type { RelayBook } from './relay-book.ts';
import { SpareSocket } from './spare-socket.ts';

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

  /** Opens a path on the best of the permit's relays that can be reached. Throws why not. */
  async open(permit: Permit): Promise<Path> {
    const { book } = this.#options;
    let lastError = new ZtnaError('ERR_CONNECTOR_OFFLINE', { hop: 'connector' });
    for (const relay of book.order(permit.relays)) {
      try {
        const path = await this.#openOn(relay, permit);
        book.noteInUse(relay.url);
        return path;
      } catch (error) {
        lastError = toZtnaError(error);
        if (errorRow(lastError.code).retry !== 'backoff') break;
        if (isOfRelay(lastError)) book.noteFailed(relay.url);
      }
    }
    throw lastError;
  }

  #dial(url: string): DialOptions {
    const identity = this.#options.identity();
    return { url, alpn: dataProtocol, serverRole: 'data-plane', identity };
  }

  async #openOn(relay: Permit['relays'][number], permit: Permit): Promise<Path> {
    const { signal, book } = this.#options;
    const identity = this.#options.identity();
    const dial = this.#dial(relay.url);
    const spare = this.#spare;
    this.#spare = undefined;
    const ahead = await spare?.take(dial);
    const startedAtMs = performance.now();
    const socket = ahead ?? (await dialForWebSocket({ ...dial, signal }));
    if (!ahead) book.noteConnected(relay.url, performance.now() - startedAtMs);
    const webSocket = await dialWebSocket({
      ...dial,
      socket,
      path: tunnelPath,
      headers: { [grantHeader]: permit.verified.grant.statement },
      signal,
    });
    return Path.open({ permit: permit.verified, relay, identity, webSocket });
  }
}

/** True when the relay, or the way to it, may be what failed. */
function isOfRelay({ code }: ZtnaError): boolean {
  if (code === 'ERR_CONNECTOR_OFFLINE') return false;
  return errorRow(code).family === 'unavailable' || code === 'ERR_RECORD_TAMPERED';
}
