import type { TLSSocket } from 'node:tls';
import { dialForWebSocket, type DialOptions } from '../../protocol/host/index.ts';

/**
 * A connection to a data plane that is dialled before the permission to use it is there, so that the two waits
 * overlap. It is verified as any other and carries nothing until it is taken; what fails here fails silently, because
 * whoever wants a connection then dials its own.
 */
export class SpareSocket {
  readonly #dial: DialOptions;
  readonly #dropping = new AbortController();
  #socket: Promise<TLSSocket | undefined> | undefined;

  constructor(dial: DialOptions) {
    this.#dial = dial;
    this.#socket = dialForWebSocket({ ...dial, signal: this.#dropping.signal }).catch(
      () => undefined,
    );
  }

  /** The connection, once, to whoever would dial just so; undefined when there is none to be had. */
  async take(dial: DialOptions): Promise<TLSSocket | undefined> {
    const isSame =
      new URL(dial.url).href === new URL(this.#dial.url).href &&
      dial.alpn === this.#dial.alpn &&
      dial.serverRole === this.#dial.serverRole &&
      dial.identity === this.#dial.identity;
    if (!isSame) {
      this.drop();
      return undefined;
    }
    const taken = this.#socket;
    this.#socket = undefined;
    const socket = await taken;
    return socket?.readable === true && socket.writable ? socket : undefined;
  }

  /** Closes the connection unless it was taken. Safe to call twice. */
  drop(): void {
    const dropped = this.#socket;
    this.#socket = undefined;
    if (!dropped) return;
    this.#dropping.abort();
    void dropped.then((socket) => socket?.destroy());
  }
}
