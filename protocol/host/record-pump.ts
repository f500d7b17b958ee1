import {
  errorRow,
  fromCloseFrame,
  toZtnaError,
  ZtnaError,
  type ErrorCode,
  type RecordOpener,
  type RecordSealer,
  type TunnelEndpoint,
} from '../index.ts';
import { countGarbage } from './buffer-garbage.ts';
import { isDrainNotice } from './hop-control.ts';
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
  /** The tunnel's end, with this path as its present one. Its owner hands `onOutput` on to `schedule`. */
  readonly endpoint: TunnelEndpoint;
  /** Asked before each record is opened or sealed; false is the end of the path, with ERR_TUNNEL_LEASE_EXPIRED. */
  readonly mayPass: () => boolean;
  /** The path is gone and the tunnel's end detached from it: why, once. Nothing follows. */
  readonly onLost: (error: ZtnaError) => void;
  /** The tunnel is over and its streams were reset: why, once. Nothing follows. */
  readonly onEnd: (error: ZtnaError) => void;
  /** The relay is about to stop. */
  readonly onDrain?: () => void;
  /** Records that arrived before the pump. */
  readonly early?: readonly Buffer[];
}

/**
 * Moves records between a tunnel's end and one of its paths, sealing and opening them on the way.
 *
 *   running ──retire()──▶ over     another path has replaced it: closed quietly, the tunnel's end is left alone
 *           ──lost──▶ over         closed or cut, a record that does not open, lease over: the end is detached
 *           ──CLOSE, close(), a frame that breaks the rules──▶ over     the tunnel has ended
 *
 * Where the tunnel cannot be taken up again, a loss is its end.
 */
export class RecordPump {
  /** Resolves when the WebSocket is gone and no timer is left. */
  readonly closed: Promise<void>;

  readonly #options: RecordPumpOptions;
  readonly #endpoint: TunnelEndpoint;
  readonly #writer: MessageWriter;
  #isPumpScheduled = false;
  #isFull = false;
  #isOver = false;
  #bytes = 0;
  #tickTimer: NodeJS.Timeout | undefined;
  #tickAtMs = Infinity;
  #closeTimer: NodeJS.Timeout | undefined;

  constructor(options: RecordPumpOptions) {
    this.#options = options;
    this.#endpoint = options.endpoint;
    const { webSocket } = options;
    this.#writer = new MessageWriter(webSocket);
    webSocket.on('message', this.#onMessage);
    webSocket.on('error', ignore); // 'close' follows
    this.#writer.onDrain(this.#onDrain);
    this.closed = new Promise((resolve) => {
      webSocket.once('close', (closeCode, text) => {
        this.#onClose(closeCode, text);
        resolve();
      });
    });
    this.schedule();
  }

  /** Takes the records that came before; to be called once its owner knows the pump. */
  start(): void {
    for (const message of this.#options.early ?? []) this.#receive(message);
  }

  /** Sealed bytes that this path has carried, both ways. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes that wait for the path to take them. */
  get waitingBytes(): number {
    return this.#writer.waitingBytes;
  }

  /** The tunnel's end has something to send. */
  schedule(): void {
    if (this.#isPumpScheduled || this.#isFull || this.#isOver) return;
    this.#isPumpScheduled = true;
    setImmediate(this.#pump); // behind all sockets that are readable now: their bytes share records
  }

  /** Ends the tunnel: CLOSE to the peer, then the WebSocket closes with the same code. */
  close(code: ErrorCode, reason: string): void {
    this.#fail(new ZtnaError(code, { reason }));
  }

  /** The peer said CLOSE, which the tunnel's end has told its owner. */
  ended(error: ZtnaError): void {
    this.#end(error);
  }

  /** Gives the path up, as if it had been lost. */
  lose(error: ZtnaError): void {
    if (this.#isOver) return;
    if (!this.#endpoint.isResumable) {
      this.#fail(error);
      return;
    }
    this.#stop(error.code);
    this.#endpoint.detach();
    this.#options.onLost(error);
  }

  /** The same, without waiting for what is in the buffers on the way: whatever still arrives, the system answers with a reset. */
  cut(error: ZtnaError): void {
    this.lose(error);
    this.#options.webSocket.terminate();
  }

  /** Stops at once, leaves the tunnel's end alone and closes the WebSocket: its place has been taken. */
  retire(): void {
    this.#stop('ERR_TUNNEL_PATH_LOST');
  }

  readonly #pump = (): void => {
    this.#isPumpScheduled = false;
    if (this.#isOver) return;
    try {
      this.#writeRecords();
    } catch (error) {
      this.lose(toZtnaError(error)); // the lease, or a key that may seal no more
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
        const parts = this.#endpoint.pull(nowMs);
        if (parts === undefined) break;
        const bytes = writer.write(this.#options.sealer.seal(parts));
        this.#bytes += bytes;
        countGarbage(buffersPerSent * bytes);
      }
    } finally {
      writer.uncork();
    }
    this.#armTick(nowMs);
  }

  readonly #onDrain = (): void => {
    if (!this.#isFull || this.#isOver) return;
    this.#isFull = false;
    this.#pump();
  };

  readonly #onMessage = (data: unknown, isBinary: boolean): void => {
    if (this.#isOver) return;
    if (isBinary) this.#receive(data as Buffer);
    else this.#receiveText(data as Buffer);
  };

  #receive(message: Buffer): void {
    if (this.#isOver) return;
    this.#bytes += message.length;
    const plaintext = this.#open(message);
    if (plaintext !== undefined) {
      try {
        const nowMs = performance.now();
        this.#endpoint.receive(plaintext, nowMs);
        this.#armTick(nowMs);
      } catch (error) {
        this.#fail(toZtnaError(error)); // a proved peer breaks the rules
      }
    }
    countGarbage(buffersPerReceived * message.length);
  }

  /** What does not open, anybody on the way may have put there. */
  #open(message: Buffer): Buffer | undefined {
    try {
      if (!this.#options.mayPass()) throw leaseExpired();
      return this.#options.opener.open(message);
    } catch (error) {
      this.lose(toZtnaError(error));
      return undefined;
    }
  }

  #receiveText(text: Buffer): void {
    if (isDrainNotice(text)) this.#options.onDrain?.();
    else this.lose(new ZtnaError('ERR_MESSAGE_UNEXPECTED'));
  }

  #armTick(nowMs: number): void {
    const deadlineMs = this.#endpoint.nextDeadlineMs;
    if (deadlineMs === undefined || deadlineMs >= this.#tickAtMs || this.#isOver) return;
    clearTimeout(this.#tickTimer);
    this.#tickAtMs = deadlineMs;
    this.#tickTimer = setTimeout(this.#tick, Math.max(1, Math.ceil(deadlineMs - nowMs)));
  }

  readonly #tick = (): void => {
    this.#tickAtMs = Infinity;
    const nowMs = performance.now();
    this.#endpoint.tick(nowMs);
    this.#armTick(nowMs);
  };

  #fail(error: ZtnaError): void {
    if (this.#isOver) return;
    this.#endpoint.close(error.code, error.reason ?? reasonOf(error.code));
    try {
      const parts = this.#endpoint.pull(performance.now());
      if (parts !== undefined) this.#writer.write(this.#options.sealer.seal(parts));
    } catch {
      // A key that may seal no more cannot carry the last word; the WebSocket's close code does.
    }
    this.#end(error);
  }

  #end(error: ZtnaError): void {
    if (this.#isOver) return;
    this.#stop(error.code);
    this.#endpoint.abort();
    this.#options.onEnd(error);
  }

  #stop(code: ErrorCode): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#tickTimer);
    const { webSocket } = this.#options;
    if (webSocket.readyState === webSocket.CLOSED) return;
    webSocket.close(errorRow(code).closeCode, code);
    this.#closeTimer = setTimeout(() => {
      webSocket.terminate();
    }, closeWithinMs);
  }

  #onClose(closeCode: number, text: Buffer): void {
    const { webSocket } = this.#options;
    const error = fromCloseFrame(closeCode, text.toString('utf8'));
    if (this.#endpoint.isResumable) this.lose(error);
    else this.#end(error);
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
