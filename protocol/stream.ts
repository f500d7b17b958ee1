import { ByteQueue } from './byte-queue.ts';
import { ChunkGatherer } from './chunk-gatherer.ts';
import { ZtnaError } from './errors.ts';
import { encodeReset, frameHeaderBytes, FrameType, type ResetCode } from './frame.ts';
import { ReceiveWindow, reservedWindowBytes, type WindowGrowth } from './window.ts';
import type { RecordWriter } from './record-writer.ts';

/** What a stream tells whoever it is attached to. Called from within `receive` or `pull` of the tunnel. */
export interface StreamHandlers {
  /** The next bytes, in order. Hand their count back with `consumed` once they were passed on. */
  onData(chunk: Buffer): void;
  /** The peer's direction is complete. */
  onEnd(): void;
  /** Both directions ended early: the peer reset the stream, or the tunnel ended (`closed`). Nothing follows. */
  onReset(code: ResetCode): void;
  /** `write` returned false before and there is room again. */
  onWritable(): void;
}

/** One TCP connection inside a tunnel. */
export interface TunnelStream {
  readonly id: number;
  /** True once both directions are complete or the stream was reset. */
  readonly isOver: boolean;
  /** Gives the stream its handlers, once; what arrived before is delivered at once. */
  attach(handlers: StreamHandlers): void;
  /** Takes a chunk, which must not be changed any more; false asks to wait for `onWritable`. Throws ERR_TUNNEL_CLOSED after `end`. */
  write(chunk: Buffer): boolean;
  /** Completes our direction behind what was written. */
  end(): void;
  /**
   * Ends both directions. With `reset`, as TCP would, what was written and fits the peer's credit goes ahead;
   * with all other codes it is dropped. Does nothing to a stream that is over.
   */
  reset(code: ResetCode): void;
  /** Says that this many more of the delivered bytes were passed on. Throws ERR_INTERNAL for more than were delivered. */
  consumed(bytes: number): void;
}

/** What a stream needs of its tunnel. */
export interface StreamOwner {
  /** The stream has something to send. */
  wantsTurn(stream: Stream): void;
  /** The stream's peer is owed more credit. */
  owesCredit(stream: Stream): void;
  /** False while there is no path: what is written waits. */
  hasPath(): boolean;
  /** Puts the header of a numbered frame into the record; exactly `bytes` of payload must follow, then `endFrame`. */
  beginFrame(record: RecordWriter, type: FrameType, bytes: number, stream: Stream): number;
  endFrame(record: RecordWriter): void;
  /** The stream sent its last numbered frame. */
  sentLast(stream: Stream, number: number): void;
  /** The stream is over. */
  becameOver(stream: Stream): void;
}

const leastHighWaterBytes = reservedWindowBytes;
const mostHighWaterBytes = 262_144;
const mostWaitingChunks = 1_024;

/** Room for FIN or RESET. */
const lastFrameBytes = frameHeaderBytes + 2;

/**
 * A stream as its tunnel sees it.
 *
 *   sending    open ──end()──▶ ending ──FIN──▶ ended       (OPEN goes ahead of all, with the first bytes)
 *   receiving  open ──FIN received──▶ ended
 *   both       any ──reset()──▶ resetting ──RESET──▶ reset
 *              any ──RESET received, or the tunnel ended──▶ gone
 */
export class Stream implements TunnelStream {
  readonly id: number;
  readonly openedAtMs: number;
  /** In the tunnel's queue of streams to serve. */
  isQueued = false;
  /** In the tunnel's queue of streams that owe credit. */
  isCreditQueued = false;

  readonly #owner: StreamOwner;
  readonly #window: ReceiveWindow;
  #handlers: StreamHandlers | undefined;
  #held: HeldChunks | undefined; // what arrived before `attach`

  #sending: 'open' | 'ending' | 'ended' | 'resetting' | 'reset' | 'gone' = 'open';
  #isOpenSent: boolean;
  #isReceiving = true;
  #ownReset: ResetCode | undefined;
  #peerReset: ResetCode | undefined;
  #lastNumber: number | undefined; // of our FIN or RESET
  #isLastAcknowledged = false;

  readonly #queue = new ByteQueue();
  #sentBytes = 0;
  #limitBytes = reservedWindowBytes;
  #isBlocked = false;
  #mustTellCredit = false;

  constructor(
    owner: StreamOwner,
    growth: WindowGrowth,
    from: { readonly id: number; readonly isOurs: boolean; readonly nowMs: number },
  ) {
    this.#owner = owner;
    this.#window = new ReceiveWindow(growth);
    this.id = from.id;
    this.openedAtMs = from.nowMs;
    this.#isOpenSent = !from.isOurs;
  }

  get isOver(): boolean {
    return this.#isReset || (this.#sending === 'ended' && !this.#isReceiving);
  }

  /** True when the peer will not name the stream again. */
  get isForgettable(): boolean {
    return this.#sending === 'gone' || (this.isOver && this.#isLastAcknowledged);
  }

  /** True when the peer is to be told of credit. */
  get isCreditDue(): boolean {
    if (!this.#isReceiving || this.#isReset) return false;
    return this.#mustTellCredit || this.#window.isCreditDue;
  }

  /** True when a frame of this stream may go out. */
  get wantsTurn(): boolean {
    switch (this.#sending) {
      case 'open':
        return !this.#isOpenSent || this.#sendableBytes > 0;
      case 'ending':
        return !this.#isOpenSent || this.#sendableBytes > 0 || this.#queue.lengthBytes === 0;
      case 'resetting':
        return true;
      case 'ended':
      case 'reset':
      case 'gone':
        return false;
    }
  }

  attach(handlers: StreamHandlers): void {
    if (this.#handlers !== undefined) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'a stream is attached once' });
    }
    this.#handlers = handlers;
    const held = this.#held?.take() ?? [];
    this.#held = undefined;
    for (const chunk of held) if (this.#ownReset === undefined) handlers.onData(chunk);
    if (this.#ownReset !== undefined) return;
    if (this.#peerReset !== undefined) handlers.onReset(this.#peerReset);
    else if (!this.#isReceiving) handlers.onEnd();
  }

  write(chunk: Buffer): boolean {
    if (this.#isReset) return true; // the reset is told by `onReset`; these bytes have nowhere to go
    if (this.#sending !== 'open') {
      throw new ZtnaError('ERR_TUNNEL_CLOSED', {
        message: 'a stream was written to after its end',
      });
    }
    if (chunk.length === 0) return !this.#isBlocked;
    this.#queue.push(chunk);
    if (this.#sendableBytes > 0) this.#owner.wantsTurn(this);
    const isFull =
      !this.#owner.hasPath() ||
      this.#queue.lengthBytes >= this.#highWaterBytes ||
      this.#queue.chunkCount >= mostWaitingChunks;
    if (isFull) this.#isBlocked = true;
    return !isFull;
  }

  end(): void {
    if (this.#sending !== 'open') return;
    this.#sending = 'ending';
    this.#isBlocked = false;
    if (this.wantsTurn) this.#owner.wantsTurn(this);
  }

  reset(code: ResetCode): void {
    if (this.isOver) return;
    this.#ownReset = code;
    this.#lastNumber = undefined;
    this.#isLastAcknowledged = false;
    const lastBytes = code === 'reset' ? this.#sendableBytes : 0;
    this.#drop(this.#isOpenSent ? 'resetting' : 'gone', lastBytes);
    if (this.#isOpenSent) this.#owner.wantsTurn(this);
    this.#owner.becameOver(this);
  }

  consumed(bytes: number): void {
    if (!this.#window.consume(bytes)) {
      throw new ZtnaError('ERR_INTERNAL', { message: 'more was consumed than was delivered' });
    }
    if (this.isCreditDue) this.#owner.owesCredit(this);
    else this.#releaseWhenRead();
  }

  /** Puts one frame, or the last two, of this stream into the record. Call while `wantsTurn`, with room for a header. */
  fill(record: RecordWriter): void {
    if (!this.#isOpenSent) this.#sendBytes(record, FrameType.Open);
    else if (this.#sendableBytes > 0) this.#sendBytes(record, FrameType.Data);
    if (this.#queue.lengthBytes > 0 || record.roomBytes < lastFrameBytes) return;
    if (this.#sending === 'ending') this.#sendFin(record);
    else if (this.#sending === 'resetting') this.#sendReset(record);
  }

  /** True once when a writer that was told to wait may go on. */
  takeWritable(): boolean {
    if (!this.#isBlocked || this.#queue.lengthBytes * 2 > this.#highWaterBytes) return false;
    if (this.#queue.chunkCount * 2 > mostWaitingChunks) return false;
    this.#isBlocked = false;
    return true;
  }

  tellWritable(): void {
    if (this.#sending === 'open') this.#handlers?.onWritable();
  }

  /** The absolute limit to tell the peer now. */
  nextLimit(nowMs: number, delayMs: number | undefined): number {
    this.#mustTellCredit = false;
    return this.#window.nextLimit(nowMs, delayMs);
  }

  /** Takes the payload of OPEN or DATA. Throws ERR_FRAME_UNEXPECTED after FIN, ERR_FRAME_CREDIT_OVERRUN. */
  receiveData(chunk: Buffer, nowMs: number): void {
    if (!this.#isReceiving) throw unexpected('data after FIN');
    if (!this.#window.receive(chunk.length, nowMs)) throw new ZtnaError('ERR_FRAME_CREDIT_OVERRUN');
    if (this.#ownReset !== undefined || chunk.length === 0) return;
    if (this.#handlers !== undefined) this.#handlers.onData(chunk);
    else (this.#held ??= new HeldChunks()).add(chunk);
  }

  /** Takes FIN. Throws ERR_FRAME_UNEXPECTED after FIN. */
  receiveFin(): void {
    if (!this.#isReceiving) throw unexpected('FIN after FIN');
    this.#isReceiving = false;
    this.#releaseWhenRead();
    if (this.#ownReset !== undefined) return;
    if (this.#sending === 'ended') this.#owner.becameOver(this);
    this.#handlers?.onEnd();
  }

  /** Takes RESET, or the end of the tunnel, which no longer counts its streams. */
  receiveReset(code: ResetCode, isTunnelOver = false): void {
    const wasOver = this.isOver;
    this.#drop('gone');
    if (wasOver) return;
    this.#peerReset = code;
    if (!isTunnelOver) this.#owner.becameOver(this);
    this.#handlers?.onReset(code);
  }

  /** Takes CREDIT; a limit that would fall is ignored. */
  receiveCredit(limitBytes: number): void {
    if (limitBytes <= this.#limitBytes) return;
    this.#limitBytes = limitBytes;
    if (this.wantsTurn) this.#owner.wantsTurn(this);
  }

  /** Another path begins, and what the last one carried of credit may be lost: tells it anew. */
  tellCreditAnew(): void {
    if (!this.#isOpenSent) return; // the peer does not know it yet
    this.#mustTellCredit = true;
    if (this.isCreditDue) this.#owner.owesCredit(this);
  }

  /** The peer has received this frame of ours; a FIN that a RESET followed is not the last. */
  acknowledged(number: number): void {
    if (number === this.#lastNumber) this.#isLastAcknowledged = true;
  }

  get #isReset(): boolean {
    return this.#sending === 'resetting' || this.#sending === 'reset' || this.#sending === 'gone';
  }

  get #sendableBytes(): number {
    return Math.min(this.#queue.lengthBytes, this.#limitBytes - this.#sentBytes);
  }

  /** Hold more while it can leave soon, little while the peer does not read. */
  get #highWaterBytes(): number {
    const creditBytes = this.#limitBytes - this.#sentBytes;
    return Math.max(leastHighWaterBytes, Math.min(mostHighWaterBytes, creditBytes));
  }

  #drop(sending: 'resetting' | 'gone', lastBytes = 0): void {
    this.#sending = sending;
    this.#isBlocked = false;
    this.#queue.truncate(lastBytes);
    if (this.#ownReset !== undefined) this.#held = undefined;
    this.#window.release();
  }

  #releaseWhenRead(): void {
    if (!this.#isReceiving && this.#window.unconsumedBytes === 0) this.#window.release();
  }

  #sendBytes(record: RecordWriter, type: typeof FrameType.Open | typeof FrameType.Data): void {
    const bytes = Math.min(this.#sendableBytes, record.roomBytes - frameHeaderBytes);
    this.#owner.beginFrame(record, type, bytes, this);
    this.#queue.moveTo(record, bytes);
    this.#owner.endFrame(record);
    this.#sentBytes += bytes;
    this.#isOpenSent = true;
  }

  #sendFin(record: RecordWriter): void {
    const number = this.#owner.beginFrame(record, FrameType.Fin, 0, this);
    this.#owner.endFrame(record);
    this.#lastNumber = number;
    this.#sending = 'ended';
    this.#owner.sentLast(this, number);
    if (!this.#isReceiving) this.#owner.becameOver(this);
  }

  #sendReset(record: RecordWriter): void {
    const payload = encodeReset(this.#ownReset ?? 'internal');
    const number = this.#owner.beginFrame(record, FrameType.Reset, payload.length, this);
    record.addPayload(payload);
    this.#owner.endFrame(record);
    this.#lastNumber = number;
    this.#sending = 'reset';
    this.#owner.sentLast(this, number);
  }
}

/** Copies of what arrived while nobody listened: a view would keep its whole record. */
class HeldChunks {
  readonly #gatherer = new ChunkGatherer();
  readonly #chunks: Buffer[] = [];

  add(chunk: Buffer): void {
    if (this.#gatherer.add(chunk)) return;
    this.#cut();
    if (!this.#gatherer.add(chunk)) this.#chunks.push(Buffer.from(chunk));
  }

  take(): Buffer[] {
    this.#cut();
    return this.#chunks;
  }

  #cut(): void {
    const gathered = this.#gatherer.take();
    if (gathered !== undefined) this.#chunks.push(gathered);
  }
}

function unexpected(what: string): ZtnaError {
  return new ZtnaError('ERR_FRAME_UNEXPECTED', {
    message: `a frame came at the wrong moment: ${what}`,
  });
}
