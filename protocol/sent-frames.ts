import { frameHeaderBytes, FrameType } from './frame.ts';
import type { ReplayLog } from './replay-log.ts';
import { type KeptFrame } from './replay-log.ts';
import type { RecordWriter } from './record-writer.ts';

/** A part of a frame is worth a header only with so many bytes. */
const leastPartBytes = 512;

/**
 * The numbered frames of one direction, as their sender knows them: how they are counted, what the peer has of them
 * and, with a replay log, what goes out again on the next path.
 */
export class SentFrames {
  readonly #replay: ReplayLog | undefined;
  readonly #mayPart: boolean;
  #last = 0;
  #acknowledged = 0;
  #pathBytes = 0;
  /** The frame that is being put into a record. */
  #begun: (KeptFrame & { payload: readonly Buffer[] }) | undefined;
  /** The number of the next frame to send again; undefined while there is none. */
  #repeatFrom: number | undefined;
  /** The first stream whose OPEN is among what has to be sent again. */
  #firstUnknownStream = Infinity;
  /** Bytes of that frame that went ahead on this path. */
  #partedBytes = 0;

  /** Without a log nothing can be sent again. With `mayPart` large frames go again in parts where there is little room. */
  constructor(replay: ReplayLog | undefined, mayPart: boolean) {
    this.#replay = replay;
    this.#mayPart = mayPart;
  }

  /** Bytes of numbered frames and parts on the present path, headers included. */
  get pathBytes(): number {
    return this.#pathBytes;
  }

  /** True while something is still to be sent again. */
  get isRepeating(): boolean {
    return this.#repeatFrom !== undefined;
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
    this.#pathBytes += frameHeaderBytes + bytes;
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
    this.#firstUnknownStream = Infinity;
    for (let next = number + 1; next <= this.#last; next++) {
      const frame = this.#replay?.get(next);
      if (frame?.type !== FrameType.Open) continue;
      this.#firstUnknownStream = frame.stream; // ids ascend
      return;
    }
  }

  /** True when the peer has been told of the stream, so that something else may be said of it. */
  isKnown(stream: number): boolean {
    return this.#repeatFrom === undefined || stream < this.#firstUnknownStream;
  }

  /** The path is gone, before everything was sent again or after. */
  leavePath(): void {
    this.#repeatFrom = undefined;
    this.#partedBytes = 0;
    this.#pathBytes = 0;
  }

  /** Fills the record with what has to be sent again; false when there is none left, and then nothing was added. */
  addRepeated(record: RecordWriter): boolean {
    let hasAdded = false;
    while (this.#repeatFrom !== undefined) {
      const number = Math.max(this.#repeatFrom, this.#acknowledged + 1);
      if (number !== this.#repeatFrom) this.#partedBytes = 0;
      const frame = this.#replay?.get(number);
      if (!frame) {
        this.#repeatFrom = undefined;
        return hasAdded;
      }
      this.#repeatFrom = number;
      if (!this.#repeat(record, frame, hasAdded)) return true;
      hasAdded = true;
      this.#repeatFrom = number + 1;
    }
    return hasAdded;
  }

  /** The tunnel is over. */
  clear(): void {
    this.#replay?.clear();
    this.leavePath();
  }

  /** True when the frame is whole with what was added. */
  #repeat(record: RecordWriter, frame: KeptFrame, hasAdded: boolean): boolean {
    const { type, stream, number, payloadBytes } = frame;
    const canPart = this.#mayPart && type === FrameType.Data;
    const room = canPart || hasAdded ? record.roomBytes : record.hardRoomBytes;
    const restBytes = payloadBytes - this.#partedBytes;
    const fits = restBytes + frameHeaderBytes <= room;
    if (!fits && (!canPart || room < frameHeaderBytes + leastPartBytes)) return false;
    const bytes = fits ? restBytes : room - frameHeaderBytes;
    record.addHeader(fits ? type : FrameType.Part, bytes, stream, number);
    addSlice(record, frame.payload, this.#partedBytes, bytes);
    this.#pathBytes += frameHeaderBytes + bytes;
    this.#partedBytes = fits ? 0 : this.#partedBytes + bytes;
    return fits;
  }
}

/** Adds `bytes` of the pieces, from `start` on. */
function addSlice(
  record: RecordWriter,
  pieces: readonly Buffer[],
  start: number,
  bytes: number,
): void {
  let skip = start;
  let left = bytes;
  for (const piece of pieces) {
    const slice = piece.subarray(Math.min(skip, piece.length), Math.min(skip + left, piece.length));
    skip = Math.max(0, skip - piece.length);
    left -= slice.length;
    if (slice.length > 0) record.addPayload(slice);
  }
}
