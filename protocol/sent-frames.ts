import { frameHeaderBytes, type FrameType } from './frame.ts';
import type { ReplayLog } from './replay-log.ts';
import { type KeptFrame } from './replay-log.ts';
import type { RecordWriter } from './record-writer.ts';

/**
 * The numbered frames of one direction, as their sender knows them: how they are counted, what the peer has of them
 * and, with a replay log, what goes out again on the next path.
 */
export class SentFrames {
  readonly #replay: ReplayLog | undefined;
  #last = 0;
  #acknowledged = 0;
  /** The frame that is being put into a record. */
  #begun: (KeptFrame & { payload: readonly Buffer[] }) | undefined;
  /** The number of the next frame to send again; undefined while there is none. */
  #repeatFrom: number | undefined;

  /** Without a log nothing can be sent again. */
  constructor(replay?: ReplayLog) {
    this.#replay = replay;
  }

  /** The number of the last frame. */
  get last(): number {
    return this.#last;
  }

  /** True when frames are kept for a later path. */
  get areKept(): boolean {
    return this.#replay !== undefined;
  }

  get keptBytes(): number {
    return this.#replay?.bytes ?? 0;
  }

  /** Puts the header of the next frame into the record; `bytes` of payload must follow, then `end`. Answers its number. */
  begin(record: RecordWriter, type: FrameType, bytes: number, stream: number): number {
    const number = ++this.#last;
    record.addHeader(type, bytes, stream, number);
    if (!this.#replay) return number;
    record.keep();
    this.#begun = { type, stream, number, payload: [], payloadBytes: bytes };
    return number;
  }

  end(record: RecordWriter): void {
    if (!this.#begun) return;
    this.#begun.payload = record.takeKept();
    this.#replay?.push(this.#begun);
    this.#begun = undefined;
  }

  /** True while no more may be sent, lest more than the bound for `streams` open streams would have to be kept. */
  isFull(streams: number): boolean {
    return this.#replay?.isFull(streams) ?? false;
  }

  /** The peer has everything up to `number`; false when it names what was never sent. */
  acknowledge(number: number): boolean {
    if (number > this.#last) return false;
    this.#acknowledged = Math.max(this.#acknowledged, number);
    this.#replay?.acknowledge(number);
    return true;
  }

  /** True when a peer that tells the truth may have exactly what is up to `number`: not less than it acknowledged. */
  mayHave(number: number): boolean {
    return number <= this.#last && number >= this.#acknowledged;
  }

  /** Another path began, on which everything above `number` has to be sent again. */
  repeatAbove(number: number): void {
    this.acknowledge(number);
    this.#repeatFrom = number + 1;
  }

  /** The path is gone, before everything was sent again or after. */
  stopRepeating(): void {
    this.#repeatFrom = undefined;
  }

  /** Fills the record with what has to be sent again; false when there is none left, and then nothing was added. */
  addRepeated(record: RecordWriter): boolean {
    let hasAdded = false;
    while (this.#repeatFrom !== undefined) {
      const number = Math.max(this.#repeatFrom, this.#acknowledged + 1);
      const frame = this.#replay?.get(number);
      if (frame && frame.payloadBytes + frameHeaderBytes > record.roomBytes) return true;
      if (frame) repeat(record, frame);
      hasAdded ||= frame !== undefined;
      this.#repeatFrom = frame ? number + 1 : undefined;
    }
    return hasAdded;
  }

  /** The tunnel is over. */
  clear(): void {
    this.#replay?.clear();
    this.#repeatFrom = undefined;
  }
}

function repeat(record: RecordWriter, frame: KeptFrame): void {
  record.addHeader(frame.type, frame.payloadBytes, frame.stream, frame.number);
  for (const part of frame.payload) record.addPayload(part);
}
