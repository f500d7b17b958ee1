import { FrameType, decodeReset, type Frame, type ResetCode } from './frame.ts';
import { Stream, type StreamOwner } from './stream.ts';
import { StreamScheduler } from './stream-scheduler.ts';
import { StreamTable } from './stream-table.ts';
import { TokenBucket } from './token-bucket.ts';
import { WindowGrowth, type ByteBudget } from './window.ts';
import type { ErrorCode, ZtnaError } from './errors.ts';
import type { RecordWriter } from './record-writer.ts';
import type { SentFrames } from './sent-frames.ts';
import type { TunnelLimits } from './tunnel-limits.ts';

const quickResetWithinMs = 1_000;

export interface TunnelStreamsOptions {
  readonly role: 'client' | 'connector';
  readonly limits: TunnelLimits;
  readonly budget: ByteBudget | undefined;
  readonly sent: SentFrames;
  readonly hasPath: () => boolean;
  /** A stream has something to send, or credit to tell. */
  readonly onOutput: () => void;
  /** The client opened a stream; connector only. */
  readonly onStream: (stream: Stream) => void;
  /** Bytes of app data arrived. */
  readonly onData: (bytes: number, nowMs: number) => void;
  readonly error: (code: ErrorCode, message: string) => ZtnaError;
}

/** The streams of one end of a tunnel: who may open them, what may be said of them, and whose turn it is to send. */
export class TunnelStreams {
  readonly #options: TunnelStreamsOptions;
  readonly #growth: WindowGrowth;
  readonly #quickResets: TokenBucket;
  readonly #owner: StreamOwner;
  readonly #table = new StreamTable();
  readonly #scheduler = new StreamScheduler();
  #lastId = -1;
  /** Nothing more may be sent before the peer acknowledges. */
  #isFull = false;

  constructor(options: TunnelStreamsOptions) {
    const { limits, budget, sent, hasPath, onOutput } = options;
    this.#options = options;
    this.#growth = new WindowGrowth(limits.growthBytes, budget);
    this.#quickResets = new TokenBucket(limits.quickResetBurst, limits.quickResetsPerSecond);
    this.#owner = {
      hasPath,
      wantsTurn: (stream) => {
        this.#scheduler.wantsTurn(stream);
        onOutput();
      },
      owesCredit: (stream) => {
        this.#scheduler.owesCredit(stream);
        onOutput();
      },
      beginFrame: (record, type, bytes, stream) => sent.begin(record, type, bytes, stream.id),
      endFrame: (record) => {
        sent.end(record);
      },
      sentLast: (stream, number) => {
        this.#table.sentLast(stream, number);
      },
      becameOver: (stream) => {
        this.#table.retire(stream);
      },
    };
  }

  get liveCount(): number {
    return this.#table.liveCount;
  }

  get lingeringCount(): number {
    return this.#table.lingeringCount;
  }

  get hasWork(): boolean {
    return this.#scheduler.hasWork;
  }

  /** Throws ERR_LIMIT_STREAMS when too many are open or all ids are used up. */
  open(firstBytes: Buffer | undefined): Stream {
    const id = this.#lastId + 2;
    if (!this.#hasRoom || id > 0xffff_ffff) {
      throw this.#options.error('ERR_LIMIT_STREAMS', 'too many streams');
    }
    const stream = this.#add(id, true, 0);
    if (firstBytes !== undefined) stream.write(firstBytes);
    this.#owner.wantsTurn(stream);
    return stream;
  }

  /** Takes OPEN, DATA, FIN or RESET. Throws ERR_FRAME_UNEXPECTED, ERR_FRAME_CREDIT_OVERRUN or ERR_LIMIT_RATE. */
  receive(frame: Frame, nowMs: number): void {
    const { type, stream: id, payload } = frame;
    if (type === FrameType.Open) {
      this.#receiveOpen(frame, nowMs);
      return;
    }
    if (type === FrameType.Reset) {
      this.#receiveReset(id, decodeReset(payload), nowMs);
      return;
    }
    const stream = this.#get(id);
    if (type === FrameType.Data) {
      this.#options.onData(payload.length, nowMs);
      stream.receiveData(payload, nowMs);
    } else {
      stream.receiveFin();
    }
    this.#table.forgetWhenDone(stream);
  }

  receiveCredit(id: number, limitBytes: number): void {
    this.#get(id).receiveCredit(limitBytes);
  }

  /** The peer has everything up to `number`, and has said what it had to say before. */
  acknowledge(number: number): void {
    this.#table.acknowledge(number);
    if (this.#isFull) this.#options.onOutput();
  }

  /** Fills the record with credit and, where `mayAddFrames`, with what streams have to send. */
  fill(
    record: RecordWriter,
    nowMs: number,
    delayMs: number | undefined,
    mayAddFrames: boolean,
  ): void {
    const { sent } = this.#options;
    this.#isFull = sent.isFull(this.#table.liveCount);
    const isKnown = sent.isRepeating ? (stream: Stream) => sent.isKnown(stream.id) : undefined;
    this.#scheduler.addCredit(record, nowMs, delayMs, isKnown);
    if (mayAddFrames && !this.#isFull && !sent.isRepeating) this.#scheduler.fill(record);
  }

  /** To be called when a record is finished. */
  tellWritable(): void {
    this.#scheduler.tellWritable();
  }

  tellCreditAnew(): void {
    for (const stream of this.#table.all()) stream.tellCreditAnew();
  }

  /** The tunnel is over: resets them all. */
  end(): void {
    this.#scheduler.clear();
    for (const stream of this.#table.clear()) stream.receiveReset('closed', true);
  }

  get #hasRoom(): boolean {
    return this.#table.liveCount < this.#options.limits.streams;
  }

  #receiveOpen(frame: Frame, nowMs: number): void {
    const { role, limits, onData, onStream, error } = this.#options;
    if (role === 'client') throw this.#unexpected('OPEN from a connector');
    if (frame.stream % 2 === 0 || frame.stream <= this.#lastId) {
      throw this.#unexpected('a stream id that is even or does not ascend');
    }
    const hasRoom = this.#hasRoom;
    if (this.#table.lingeringCount >= limits.lingeringStreams) {
      throw error('ERR_LIMIT_RATE', 'too many streams wait to be acknowledged');
    }
    const stream = this.#add(frame.stream, false, nowMs);
    stream.receiveData(frame.payload, nowMs);
    onData(frame.payload.length, nowMs);
    if (hasRoom) {
      onStream(stream);
    } else {
      stream.reset('limit');
      this.#countQuickReset(nowMs);
    }
  }

  #receiveReset(id: number, code: ResetCode, nowMs: number): void {
    const stream = this.#table.get(id);
    if (stream === undefined) {
      // The peer's ACK of our last frame may have overtaken a RESET that waited for its turn.
      if (id > this.#lastId || id % 2 === 0) throw this.#unexpected('RESET of no stream');
      return;
    }
    const isQuick = nowMs - stream.openedAtMs < quickResetWithinMs;
    if (this.#options.role === 'connector' && isQuick) this.#countQuickReset(nowMs);
    stream.receiveReset(code);
    this.#table.forgetWhenDone(stream);
  }

  #countQuickReset(nowMs: number): void {
    if (this.#quickResets.take(nowMs)) return;
    throw this.#options.error('ERR_LIMIT_RATE', 'too many streams were opened only to be reset');
  }

  #add(id: number, isOurs: boolean, nowMs: number): Stream {
    const stream = new Stream(this.#owner, this.#growth, { id, isOurs, nowMs });
    this.#table.add(stream);
    this.#lastId = id;
    return stream;
  }

  #get(id: number): Stream {
    const stream = this.#table.get(id);
    if (stream === undefined) throw this.#unexpected('a stream that is not there');
    return stream;
  }

  #unexpected(what: string): ZtnaError {
    return this.#options.error('ERR_FRAME_UNEXPECTED', `a frame came at the wrong moment: ${what}`);
  }
}
