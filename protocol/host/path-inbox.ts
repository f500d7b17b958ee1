import { fromCloseFrame, ZtnaError } from '../errors.ts';
import { isDrainNotice } from './hop-control.ts';
import type { RawData, WebSocket } from 'ws';

/** What may wait here unread, in bytes. */
const maxWaitingBytes = 1_048_576;

/** What came on a path before its pump. */
export interface EarlyMessages {
  readonly records: readonly Buffer[];
  /** The relay has said that it is about to stop. */
  readonly isDraining: boolean;
}

/**
 * The binary messages of a path, one at a time, until its pump takes over: the handshake's, and those that prove a
 * tunnel that is taken up again. Nothing that comes in between is lost, and no more than a bound is kept.
 */
export class PathInbox {
  readonly #webSocket: WebSocket;
  readonly #messages: Buffer[];
  #waitingBytes = 0;
  #isDraining = false;
  #failure: ZtnaError | undefined;
  #wake: () => void = () => undefined;

  /** `early` came before. A socket that is paused stays so. */
  constructor(webSocket: WebSocket, early: readonly Buffer[] = []) {
    this.#webSocket = webSocket;
    this.#messages = [...early];
    webSocket.on('message', this.#onMessage);
    webSocket.on('close', this.#onClose);
  }

  /**
   * The next message. Throws what the path was closed with, ERR_MESSAGE_UNEXPECTED for text that is no drain notice,
   * ERR_MESSAGE_TOO_LARGE when too much came at once, and ERR_HANDSHAKE_TIMEOUT.
   */
  async next(timeoutMs: number): Promise<Buffer> {
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#wake = () => {
      resolve(undefined);
    };
    const timer = setTimeout(this.#wake, timeoutMs);
    if (this.#messages.length === 0 && !this.#failure) await promise;
    clearTimeout(timer);
    if (this.#failure) throw this.#failure;
    const message = this.#messages.shift();
    if (message === undefined) throw new ZtnaError('ERR_HANDSHAKE_TIMEOUT', { hop: 'connector' });
    this.#waitingBytes -= Math.min(this.#waitingBytes, message.length);
    return message;
  }

  /** Leaves the path to another, who must listen within this turn. Throws what it was closed with. */
  take(): EarlyMessages {
    this.release();
    if (this.#failure) throw this.#failure;
    return { records: this.#messages, isDraining: this.#isDraining };
  }

  /** Listens no more. Safe to call twice. */
  release(): void {
    this.#webSocket.off('message', this.#onMessage);
    this.#webSocket.off('close', this.#onClose);
  }

  readonly #onMessage = (data: RawData, isBinary: boolean): void => {
    const message = data as Buffer; // what ws makes of a message unless told otherwise
    if (isBinary) {
      this.#waitingBytes += message.length;
      if (this.#waitingBytes > maxWaitingBytes) this.#fail(new ZtnaError('ERR_MESSAGE_TOO_LARGE'));
      else this.#messages.push(message);
    } else if (isDrainNotice(message)) {
      this.#isDraining = true;
      return;
    } else {
      this.#fail(new ZtnaError('ERR_MESSAGE_UNEXPECTED', { hop: 'relay' }));
    }
    this.#wake();
  };

  readonly #onClose = (closeCode: number, text: Buffer): void => {
    this.#fail(fromCloseFrame(closeCode, text.toString('utf8')));
    this.#wake();
  };

  #fail(error: ZtnaError): void {
    this.#failure ??= error;
  }
}
