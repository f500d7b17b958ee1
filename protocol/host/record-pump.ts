import {
  errorRow,
  fromCloseFrame,
  toZtnaError,
  ZtnaError,
  type ErrorCode,
  type RecordOpener,
  type RecordSealer,
  type TunnelEndpoint,
  type TunnelHandlers,
} from '../index.ts';
import { countGarbage } from './buffer-garbage.ts';
import { MessageWriter } from './message-writer.ts';
import type { WebSocket } from 'ws';

/** Stop pulling records while this much waits to be written. */
const highWaterBytes = 1_048_576;

/** Buffers that a record leaves behind, as multiples of its size: as TLS gave it, as a message, and opened. */
const buffersPerReceived = 3;
/** The same for one sent: what was read from the app's socket, and the ciphertext. */
const buffersPerSent = 2;

/** How long the WebSocket may take to close before it is cut. */
const closeWithinMs = 5_000;

export interface RecordPumpOptions {
  /** Open, without extensions, and past the handshake; its binary messages are records from here on. */
  readonly webSocket: WebSocket;
  readonly sealer: Pick<RecordSealer, 'seal'>;
  readonly opener: Pick<RecordOpener, 'open'>;
  /** Makes the tunnel's end; `handlers` are the pump's, the caller adds `onAccept` or `onStream`. */
  readonly createEndpoint: (handlers: TunnelHandlers) => TunnelEndpoint;
  /** Asked before each record is opened or sealed; false ends the tunnel with ERR_TUNNEL_LEASE_EXPIRED. */
  readonly mayPass: () => boolean;
  /** The tunnel is over and its streams were reset: why, once. */
  readonly onEnd: (error: ZtnaError) => void;
  /** A text message: hop control. Without it such a message ends the tunnel. */
  readonly onText?: (text: string) => void;
  /** Records that arrived before the pump. */
  readonly early?: readonly Buffer[];
}

/** Moves records between a tunnel's end and its WebSocket, sealing and opening them on the way. */
export class RecordPump {
  readonly endpoint: TunnelEndpoint;
  /** Resolves when the WebSocket is gone and no timer is left. */
  readonly closed: Promise<void>;

  readonly #options: RecordPumpOptions;
  readonly #writer: MessageWriter;
  #isPumpScheduled = false;
  #isFull = false;
  #hasEnded = false;
  #tickTimer: NodeJS.Timeout | undefined;
  #tickAtMs = Infinity;
  #closeTimer: NodeJS.Timeout | undefined;

  constructor(options: RecordPumpOptions) {
    this.#options = options;
    const { webSocket } = options;
    this.#writer = new MessageWriter(webSocket);
    this.endpoint = options.createEndpoint({
      onOutput: this.#schedule,
      onClose: (code, reason) => {
        this.#end(new ZtnaError(code, { reason }));
      },
    });
    webSocket.on('message', this.#onMessage);
    webSocket.on('error', ignore); // 'close' follows
    this.#writer.onDrain(this.#onDrain);
    this.closed = new Promise((resolve) => {
      webSocket.once('close', (closeCode, text) => {
        this.#onClose(closeCode, text);
        resolve();
      });
    });
    for (const message of options.early ?? []) this.#receive(message);
    this.#schedule();
  }

  /** Ends the tunnel: CLOSE to the peer, then the WebSocket closes with the same code. */
  close(code: ErrorCode, reason: string): void {
    this.#fail(new ZtnaError(code, { reason }));
  }

  readonly #schedule = (): void => {
    if (this.#isPumpScheduled || this.#isFull || this.#hasEnded) return;
    this.#isPumpScheduled = true;
    setImmediate(this.#pump); // behind all sockets that are readable now: their bytes share records
  };

  readonly #pump = (): void => {
    this.#isPumpScheduled = false;
    if (this.#hasEnded) return;
    try {
      this.#writeRecords();
    } catch (error) {
      this.#fail(toZtnaError(error));
    }
  };

  #writeRecords(): void {
    const nowMs = performance.now();
    const writer = this.#writer;
    writer.cork();
    try {
      for (;;) {
        this.#isFull = writer.waitingBytes >= highWaterBytes;
        if (this.#isFull) break;
        if (!this.#options.mayPass()) throw leaseExpired();
        const parts = this.endpoint.pull(nowMs);
        if (parts === undefined) break;
        countGarbage(buffersPerSent * writer.write(this.#options.sealer.seal(parts)));
      }
    } finally {
      writer.uncork();
    }
    this.#armTick(nowMs);
  }

  readonly #onDrain = (): void => {
    if (!this.#isFull) return;
    this.#isFull = false;
    this.#pump();
  };

  readonly #onMessage = (data: unknown, isBinary: boolean): void => {
    if (this.#hasEnded) return;
    if (isBinary) this.#receive(data as Buffer);
    else this.#receiveText(data as Buffer);
  };

  #receive(message: Buffer): void {
    if (this.#hasEnded) return;
    try {
      if (!this.#options.mayPass()) throw leaseExpired();
      const nowMs = performance.now();
      this.endpoint.receive(this.#options.opener.open(message), nowMs);
      this.#armTick(nowMs);
    } catch (error) {
      this.#fail(toZtnaError(error));
    }
    countGarbage(buffersPerReceived * message.length);
  }

  #receiveText(text: Buffer): void {
    if (this.#options.onText !== undefined) this.#options.onText(text.toString('utf8'));
    else this.#fail(new ZtnaError('ERR_MESSAGE_UNEXPECTED'));
  }

  #armTick(nowMs: number): void {
    const deadlineMs = this.endpoint.nextDeadlineMs;
    if (deadlineMs === undefined || deadlineMs >= this.#tickAtMs || this.#hasEnded) return;
    clearTimeout(this.#tickTimer);
    this.#tickAtMs = deadlineMs;
    this.#tickTimer = setTimeout(this.#tick, Math.max(1, Math.ceil(deadlineMs - nowMs)));
  }

  readonly #tick = (): void => {
    this.#tickAtMs = Infinity;
    const nowMs = performance.now();
    this.endpoint.tick(nowMs);
    this.#armTick(nowMs);
  };

  #fail(error: ZtnaError): void {
    if (this.#hasEnded) return;
    this.endpoint.close(error.code, error.reason ?? reasonOf(error.code));
    try {
      const parts = this.endpoint.pull(performance.now());
      if (parts !== undefined) this.#writer.write(this.#options.sealer.seal(parts));
    } catch {
      // A key that may seal no more cannot carry the last word; the WebSocket's close code does.
    }
    this.#end(error);
  }

  #end(error: ZtnaError): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    clearTimeout(this.#tickTimer);
    this.endpoint.abort();
    const { webSocket } = this.#options;
    if (webSocket.readyState !== webSocket.CLOSED) {
      webSocket.close(errorRow(error.code).closeCode, error.code);
      this.#closeTimer = setTimeout(() => {
        webSocket.terminate();
      }, closeWithinMs);
    }
    this.#options.onEnd(error);
  }

  #onClose(closeCode: number, text: Buffer): void {
    const { webSocket } = this.#options;
    this.#end(fromCloseFrame(closeCode, text.toString('utf8')));
    clearTimeout(this.#closeTimer);
    this.#writer.offDrain(this.#onDrain);
    webSocket.off('message', this.#onMessage);
  }
}

function ignore(): void {
  // nothing to do
}

function leaseExpired(): ZtnaError {
  return new ZtnaError('ERR_TUNNEL_LEASE_EXPIRED', { reason: 'lease_expired' });
}

/** ERR_FRAME_MALFORMED → frame_malformed. */
function reasonOf(code: ErrorCode): string {
  return code.slice('ERR_'.length).toLowerCase();
}
