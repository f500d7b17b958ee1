import { Fifo } from './fifo.ts';
import { encodeCount, frameHeaderBytes, FrameType } from './frame.ts';
import type { RecordWriter } from './record-writer.ts';
import type { Stream } from './stream.ts';

/** A stream starts a frame in a record only while this much room is left. */
const leastRoomBytes = 1_024;

const creditFrameBytes = frameHeaderBytes + 8;

/** Decides which streams go into the next record, and which are told credit in it. */
export class StreamScheduler {
  readonly #ready = new Fifo<Stream>();
  readonly #creditDue = new Fifo<Stream>();
  readonly #writable: Stream[] = [];

  get hasWork(): boolean {
    return this.#ready.length > 0 || this.#creditDue.length > 0;
  }

  /** The stream has something to send. */
  wantsTurn(stream: Stream): void {
    if (stream.isQueued) return;
    stream.isQueued = true;
    this.#ready.push(stream);
  }

  /** The stream's peer is owed credit. */
  owesCredit(stream: Stream): void {
    if (stream.isCreditQueued) return;
    stream.isCreditQueued = true;
    this.#creditDue.push(stream);
  }

  /** One turn for each stream that has something to send, while there is room. */
  fill(record: RecordWriter): void {
    while (record.roomBytes >= leastRoomBytes) {
      const stream = this.#ready.shift();
      if (stream === undefined) return;
      stream.isQueued = false;
      if (stream.wantsTurn) stream.fill(record);
      if (stream.wantsTurn) this.wantsTurn(stream);
      if (stream.takeWritable()) this.#writable.push(stream);
    }
  }

  /**
   * Tells credit that is due. `delayMs` is the path's minimum round trip, if known. With `mayTell` the others wait for
   * another record.
   */
  addCredit(
    record: RecordWriter,
    nowMs: number,
    delayMs: number | undefined,
    mayTell?: (stream: Stream) => boolean,
  ): void {
    for (let left = this.#creditDue.length; left > 0; left--) {
      if (record.roomBytes < creditFrameBytes) return;
      const stream = this.#creditDue.shift();
      if (stream === undefined) return;
      stream.isCreditQueued = false;
      if (!stream.isCreditDue) continue;
      if (mayTell && !mayTell(stream)) {
        this.owesCredit(stream);
        continue;
      }
      const payload = encodeCount(stream.nextLimit(nowMs, delayMs));
      record.addFrame(FrameType.Credit, stream.id, 0, payload);
    }
  }

  /** Tells the streams that a record made writable again; call when the record is finished. */
  tellWritable(): void {
    if (this.#writable.length === 0) return;
    for (const stream of this.#writable.splice(0)) stream.tellWritable();
  }

  clear(): void {
    this.#ready.clear();
    this.#creditDue.clear();
    this.#writable.length = 0;
  }
}
