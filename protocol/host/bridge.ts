import { Socket } from 'node:net';
import { ZtnaError, type ResetCode, type StreamHandlers, type TunnelStream } from '../index.ts';
import { ChunkGatherer } from '../chunk-gatherer.ts';
import { resetSocket } from './reset-socket.ts';
import type { Duplex } from 'node:stream';

/** How a bridged connection ended: both directions complete, or reset and why. */
export type BridgeOutcome = 'completed' | ResetCode;

/** Failures to connect that are this machine's own. */
const localFailures = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);

/**
 * Joins a stream with a local connection until both directions have ended: bytes at the pace of the slower side,
 * half-close as half-close, reset as reset. The connection must have been made with `allowHalfOpen: true`; it may
 * still be connecting, and then fails as `refused` or `unreachable`. Calls `onDone` once, when the connection is gone.
 */
export function bridgeStream(
  stream: TunnelStream,
  socket: Duplex,
  onDone?: (outcome: BridgeOutcome) => void,
): void {
  stream.attach(new Bridge(stream, socket, onDone));
}

class Bridge implements StreamHandlers {
  readonly #stream: TunnelStream;
  readonly #socket: Duplex;
  readonly #onDone: ((outcome: BridgeOutcome) => void) | undefined;
  readonly #gatherer = new ChunkGatherer();
  #writtenBytes = 0;
  #consumedBytes = 0;
  #hasConnected: boolean;
  #hasLocalEnded = false;
  #resetCode: ResetCode | undefined;

  constructor(stream: TunnelStream, socket: Duplex, onDone?: (outcome: BridgeOutcome) => void) {
    this.#stream = stream;
    this.#socket = socket;
    this.#onDone = onDone;
    this.#hasConnected = !(socket instanceof Socket && socket.connecting);
    if (socket instanceof Socket) socket.setNoDelay(true); // chunks come as the far app sent them
    socket.on('error', this.#onLocalError);
    if (socket.closed) {
      process.nextTick(this.#onLocalClose);
      return;
    }
    socket.on('close', this.#onLocalClose);
    socket.on('connect', this.#onConnect);
    socket.on('end', this.#onLocalEnd);
    socket.on('data', this.#onLocalData);
  }

  onData(chunk: Buffer): void {
    if (this.#socket.destroyed) return;
    const mustWait = this.#socket.writableLength > 0;
    if (mustWait && this.#gatherer.add(chunk)) return; // `#onWritten` passes it on
    this.#writeGathered();
    const isPart = chunk.length * 2 < chunk.buffer.byteLength;
    this.#write(mustWait && isPart ? Buffer.from(chunk) : chunk);
  }

  onEnd(): void {
    if (this.#socket.destroyed) return;
    this.#writeGathered();
    this.#socket.end();
  }

  onReset(code: ResetCode): void {
    this.#resetCode ??= code;
    this.#cut();
  }

  onWritable(): void {
    this.#socket.resume();
  }

  readonly #onConnect = (): void => {
    this.#hasConnected = true;
  };

  readonly #onLocalData = (chunk: Buffer): void => {
    if (!this.#stream.write(chunk)) this.#socket.pause();
  };

  readonly #onLocalEnd = (): void => {
    this.#hasLocalEnded = true;
    this.#stream.end();
  };

  readonly #onLocalError = (error: NodeJS.ErrnoException): void => {
    this.#resetCode ??= this.#hasConnected ? 'reset' : connectFailure(error);
    this.#stream.reset(this.#resetCode);
  };

  readonly #onLocalClose = (): void => {
    const isComplete = this.#hasLocalEnded && this.#socket.writableFinished;
    if (!isComplete || this.#socket.errored) this.#resetCode ??= 'closed';
    if (this.#resetCode !== undefined) this.#stream.reset(this.#resetCode);
    this.#socket.off('data', this.#onLocalData);
    this.#socket.off('end', this.#onLocalEnd);
    this.#socket.off('connect', this.#onConnect);
    this.#socket.off('close', this.#onLocalClose);
    this.#socket.off('error', this.#onLocalError);
    this.#onDone?.(this.#resetCode ?? 'completed');
  };

  readonly #onWritten = (error?: Error | null): void => {
    if (error) return; // 'error' and 'close' follow
    this.#writeGathered();
    const takenBytes = this.#writtenBytes - this.#socket.writableLength;
    if (takenBytes === this.#consumedBytes) return;
    this.#stream.consumed(takenBytes - this.#consumedBytes);
    this.#consumedBytes = takenBytes;
  };

  #write(chunk: Buffer): void {
    this.#writtenBytes += chunk.length;
    this.#socket.write(chunk, this.#onWritten);
  }

  #writeGathered(): void {
    const chunk = this.#gatherer.take();
    if (chunk !== undefined && this.#socket.writable) this.#write(chunk);
  }

  /** Ends the local connection so that its peer sees a reset, where the kind of connection has such a thing. */
  #cut(): void {
    const socket = this.#socket;
    if (socket instanceof Socket && this.#hasConnected) resetSocket(socket);
    else socket.destroy(new ZtnaError('ERR_STREAM_RESET'));
  }
}

function connectFailure(error: NodeJS.ErrnoException): ResetCode {
  if (error.code === 'ECONNREFUSED') return 'refused';
  if (error.code === 'ECONNRESET') return 'reset'; // accepted and reset before we heard of it
  return error.code !== undefined && localFailures.has(error.code) ? 'internal' : 'unreachable';
}
