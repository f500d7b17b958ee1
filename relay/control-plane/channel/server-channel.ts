import { performance } from 'node:perf_hooks';
import type { WebSocket } from 'ws';
import {
  decodeMessage,
  encodeMessage,
  toCloseFrame,
  toZtnaError,
  ZtnaError,
  type MessageSchema,
} from '../../../protocol/index.ts';
import { startLiveness, type Logger } from '../../../protocol/host/index.ts';
import { Lanes } from './lanes.ts';

/** A dialler says hello within this time or is dropped. */
const helloTimeoutMs = 5_000;
/** What a peer that stops reading may leave unsent before it is dropped. */
const maxUnsentBytes = 4 * 1_048_576;
/** Messages may wait for earlier ones of the same channel, as many as come in this time. */
const maxWaitingSeconds = 2;
const burstSeconds = 4;
/** Messages of one channel that are handled at the same time, where they are about different things. */
const mostLanes = 64;

export interface ServerChannelOptions<In, Out> {
  readonly from: MessageSchema;
  readonly to: MessageSchema;
  readonly maxMessageBytes: number;
  /** Messages a second that the peer may send for long; four seconds' worth at once. */
  readonly messagesPerSecond: number;
  readonly logger: Logger;
  /** How soon a silent peer is given up; by default as every control channel. */
  readonly liveness?: { readonly pingEveryMs: number; readonly deadAfterMs: number };
  /** Answers the time for a nonce; served ahead of everything that waits, but behind the welcome. */
  readonly answerTime: (nonce: string) => Out;
  /** Handles one message; the next of the same channel waits for it. What it throws closes the channel. */
  readonly onMessage: (message: In) => Promise<void> | void;
  /** What a message is about, where it need not wait for those that are about something else; undefined: for all. */
  readonly laneOf?: (message: In) => string | undefined;
}

/**
 * How a peer left: its end was `closed` by a word of this side or of its own, fell `silent`, or was `cut` without a word, as
 * the system does for a process that was killed.
 */
export type Departure = 'closed' | 'silent' | 'cut';

/** What WebSocket calls a connection that ended without a close frame. */
const cutCode = 1006;

/**
 * The control plane's end of one control channel: strict messages in order, liveness, and bounds on what the peer
 * may queue either way. The first message must be `hello`; whoever handles it answers `welcome`. More may follow it
 * at once, without waiting for that.
 */
export class ServerChannel<In extends { readonly type: string }, Out> {
  /** Resolves when the socket is gone, whoever closed it. */
  readonly closed: Promise<Departure>;
  readonly #socket: WebSocket;
  readonly #options: ServerChannelOptions<In, Out>;
  readonly #waiting: In[] = [];
  readonly #lanes = new Lanes(mostLanes, (error) => {
    this.#fail(error);
  });
  #isBusy = false;
  #isOver = false;
  #hasGreeted = false;
  #hasWelcomed = false;
  #tokens: number;
  #refilledAtMs = performance.now();
  readonly #helloTimer: NodeJS.Timeout;
  readonly #stopLiveness: () => void;

  constructor(socket: WebSocket, options: ServerChannelOptions<In, Out>) {
    this.#socket = socket;
    this.#options = options;
    this.#tokens = options.messagesPerSecond * burstSeconds;
    this.#helloTimer = setTimeout(() => {
      this.close(new ZtnaError('ERR_HANDSHAKE_TIMEOUT'));
    }, helloTimeoutMs);
    let isSilent = false;
    this.#stopLiveness = startLiveness(
      socket,
      () => {
        options.logger.info('channel_silent');
        isSilent = true;
        socket.terminate();
      },
      options.liveness,
    );
    socket.on('message', (data, isBinary) => {
      this.#onText(data as Buffer, isBinary);
    });
    socket.on('error', (error) => {
      options.logger.debug('channel_error', { error: error.message });
    });
    this.closed = new Promise((resolve) => {
      socket.on('close', (code: number) => {
        const wasCut = code === cutCode && !this.#isOver;
        this.#end();
        resolve(isSilent ? 'silent' : wasCut ? 'cut' : 'closed');
      });
    });
  }

  /** Throws ERR_TUNNEL_CLOSED on a channel that is over: whoever has left must not be made known. */
  throwIfOver(): void {
    if (this.#isOver) {
      throw new ZtnaError('ERR_TUNNEL_CLOSED', { message: 'the peer left before it was greeted' });
    }
  }

  /** Sends a message; does nothing on a channel that is over. */
  send(message: Out): void {
    if (this.#isOver) return;
    this.#hasWelcomed = true; // nothing is sent before it
    this.#socket.send(encodeMessage(this.#options.to, message));
    if (this.#socket.bufferedAmount > maxUnsentBytes) {
      this.#options.logger.warn('channel_too_slow');
      this.#socket.terminate();
    }
  }

  /** Closes with the code of `error`; a peer that does not answer the close is cut off. */
  close(error: unknown): void {
    if (this.#isOver) return;
    const { closeCode, text } = toCloseFrame(error);
    this.#end();
    this.#socket.close(closeCode, text);
    setTimeout(() => {
      this.#socket.terminate();
    }, 1_000).unref();
  }

  #end(): void {
    this.#isOver = true;
    clearTimeout(this.#helloTimer);
    this.#stopLiveness();
    this.#waiting.length = 0;
  }

  #onText(data: Buffer, isBinary: boolean): void {
    if (this.#isOver) return;
    try {
      if (isBinary) throw new ZtnaError('ERR_MESSAGE_MALFORMED');
      if (!this.#takeToken()) throw new ZtnaError('ERR_LIMIT_RATE');
      const { from, maxMessageBytes } = this.#options;
      const message = decodeMessage(from, data, maxMessageBytes) as In;
      if ((message.type === 'hello') === this.#hasGreeted) {
        throw new ZtnaError('ERR_MESSAGE_UNEXPECTED');
      }
      if (message.type === 'hello') {
        this.#hasGreeted = true;
        clearTimeout(this.#helloTimer);
      }
      if (message.type === 'time' && this.#hasWelcomed) {
        this.#answerTime(message);
        return;
      }
      const { messagesPerSecond } = this.#options;
      if (this.#waiting.length >= messagesPerSecond * maxWaitingSeconds)
        throw new ZtnaError('ERR_LIMIT_RATE');
      this.#waiting.push(message);
      void this.#work();
    } catch (error) {
      this.#fail(error);
    }
  }

  #answerTime(message: In): void {
    const { nonce } = message as unknown as { readonly nonce: string };
    this.send(this.#options.answerTime(nonce));
  }

  async #work(): Promise<void> {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
        if (next.type === 'time') this.#answerTime(next);
        else await this.#handle(next);
      }
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#isBusy = false;
    }
  }

  async #handle(message: In): Promise<void> {
    const { onMessage, laneOf } = this.#options;
    const lane = laneOf?.(message);
    if (lane !== undefined) {
      await this.#lanes.run(lane, async () => onMessage(message));
      return;
    }
    await this.#lanes.idle();
    if (!this.#isOver) await onMessage(message);
  }

  #fail(error: unknown): void {
    if (this.#isOver && error instanceof ZtnaError && error.code === 'ERR_TUNNEL_CLOSED') return;
    const { code, message, cause } = toZtnaError(error);
    this.#options.logger.warn('channel_refused', {
      code,
      error: message,
      cause: cause instanceof Error ? (cause.stack ?? cause.message) : null,
    });
    this.close(error);
  }

  #takeToken(): boolean {
    const nowMs = performance.now();
    const { messagesPerSecond } = this.#options;
    const earned = ((nowMs - this.#refilledAtMs) / 1_000) * messagesPerSecond;
    this.#tokens = Math.min(messagesPerSecond * burstSeconds, this.#tokens + earned);
    this.#refilledAtMs = nowMs;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
