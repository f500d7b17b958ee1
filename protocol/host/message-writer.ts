import { ZtnaError } from '../index.ts';
import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';

/** What is used of ws beside its interface; the package is pinned to one version. */
interface WebSocketInternals {
  readonly _socket: Socket | null;
  readonly _isServer: boolean;
}

/**
 * Writes binary messages of several pieces to a WebSocket without joining them first. ws can only send a message that
 * lies in one buffer; this writes the frame itself, which is whole on the socket before ws writes another.
 *
 * A client's masking key is zero: masks protect proxies that see plaintext, and this runs inside TLS.
 */
export class MessageWriter {
  readonly #webSocket: WebSocket;
  readonly #socket: Socket;
  readonly #isServer: boolean;

  /** Throws ERR_INTERNAL for a WebSocket that is not open or compresses. */
  constructor(webSocket: WebSocket) {
    const { _socket: socket, _isServer: isServer } = webSocket as unknown as WebSocketInternals;
    if (!socket || webSocket.readyState !== webSocket.OPEN || webSocket.extensions !== '') {
      throw new ZtnaError('ERR_INTERNAL', { message: 'a WebSocket that is not ready for records' });
    }
    this.#webSocket = webSocket;
    this.#socket = socket;
    this.#isServer = isServer;
  }

  /** Bytes that wait to be written. */
  get waitingBytes(): number {
    return this.#socket.writableLength;
  }

  /** Writes one message, nothing when the WebSocket is no longer open; answers its size in bytes. */
  write(pieces: readonly Buffer[]): number {
    if (this.#webSocket.readyState !== this.#webSocket.OPEN) return 0;
    let lengthBytes = 0;
    for (const piece of pieces) lengthBytes += piece.length;
    this.#socket.cork();
    this.#socket.write(this.#frameHeader(lengthBytes));
    for (const piece of pieces) this.#socket.write(piece);
    this.#socket.uncork();
    return lengthBytes;
  }

  cork(): void {
    this.#socket.cork();
  }

  uncork(): void {
    this.#socket.uncork();
  }

  /** Calls back whenever everything was written after more had waited than the socket likes. */
  onDrain(listener: () => void): void {
    this.#socket.on('drain', listener);
  }

  offDrain(listener: () => void): void {
    this.#socket.off('drain', listener);
  }

  /** RFC 6455 section 5.2: final binary frame, length, and for a client a masking key of zero. */
  #frameHeader(lengthBytes: number): Buffer {
    if (lengthBytes > 0xffff) throw new ZtnaError('ERR_INTERNAL', { message: 'record size' });
    const mask = this.#isServer ? 0 : 0x80;
    const isShort = lengthBytes < 126;
    const header = Buffer.alloc((isShort ? 2 : 4) + (mask === 0 ? 0 : 4));
    header[0] = 0x82;
    header[1] = mask | (isShort ? lengthBytes : 126);
    if (!isShort) header.writeUInt16BE(lengthBytes, 2);
    return header;
  }
}
