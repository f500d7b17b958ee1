import { frameHeaderBytes, maxPlaintextBytes, writeFrameHeader, type FrameType } from './frame.ts';

const slabBytes = 65_536;

/** Below this, copying a payload beside its header costs less than sealing it as a piece of its own. */
const copyBelowBytes = 4_096;

/** Where headers and small payloads are laid down; written parts are never overwritten. */
let slab = Buffer.alloc(0);
let slabEnd = 0;

/** Collects the frames of one record as parts to seal in a row. Used from first frame to `finish` without a pause. */
export class RecordWriter {
  #parts: Buffer[] = [];
  #start = 0;
  #lengthBytes = 0;
  #limitBytes = maxPlaintextBytes;
  /** Payload of the current frame so far, where it is kept: pieces, and where its part of the slab begins. */
  #kept: Buffer[] | undefined;
  #keptStart = 0;

  /** Bytes that still fit. */
  get roomBytes(): number {
    return Math.max(0, this.#limitBytes - this.#lengthBytes);
  }

  /** Bytes that fit whatever the limit of this record. */
  get hardRoomBytes(): number {
    return maxPlaintextBytes - this.#lengthBytes;
  }

  /** Holds this record to so many bytes from here on. */
  limitRoom(bytes: number): void {
    this.#limitBytes = Math.min(maxPlaintextBytes, this.#lengthBytes + bytes);
  }

  get isEmpty(): boolean {
    return this.#lengthBytes === 0;
  }

  /** Begins a frame; `length` bytes of payload must follow through `addPayload`. */
  addHeader(type: FrameType, length: number, stream: number, number: number): void {
    this.#reserve(frameHeaderBytes);
    writeFrameHeader(slab, slabEnd, type, length, stream, number);
    slabEnd += frameHeaderBytes;
    this.#lengthBytes += frameHeaderBytes;
  }

  /** From here on the payload of the current frame is noted, for `takeKept`. Call behind `addHeader`. */
  keep(): void {
    this.#kept = [];
    this.#keptStart = slabEnd;
  }

  /** The payload since `keep`, as it lies in the record. */
  takeKept(): Buffer[] {
    const kept = this.#kept ?? [];
    if (slabEnd > this.#keptStart) kept.push(slab.subarray(this.#keptStart, slabEnd));
    this.#kept = undefined;
    return kept;
  }

  /** Adds bytes of the current frame's payload. A large chunk is referred to and must not be changed any more. */
  addPayload(chunk: Buffer): void {
    this.#lengthBytes += chunk.length;
    if (chunk.length < copyBelowBytes) {
      this.#reserve(chunk.length);
      slab.set(chunk, slabEnd);
      slabEnd += chunk.length;
    } else {
      this.#cut();
      this.#parts.push(chunk);
      this.#keepSlab();
      this.#kept?.push(chunk);
    }
  }

  /** Adds a whole frame. */
  addFrame(type: FrameType, stream: number, number: number, payload?: Buffer): void {
    this.addHeader(type, payload?.length ?? 0, stream, number);
    if (payload !== undefined) this.addPayload(payload);
  }

  /** The parts in order, or undefined when nothing was added; the writer is ready for the next record. */
  finish(): Buffer[] | undefined {
    this.#limitBytes = maxPlaintextBytes;
    if (this.#lengthBytes === 0) return undefined;
    this.#cut();
    const parts = this.#parts;
    this.#parts = [];
    this.#lengthBytes = 0;
    return parts;
  }

  #reserve(bytes: number): void {
    if (this.#lengthBytes === 0) this.#start = slabEnd;
    if (slab.length - slabEnd >= bytes) return;
    this.#cut();
    this.#keepSlab();
    slab = Buffer.allocUnsafeSlow(slabBytes);
    slabEnd = 0;
    this.#start = 0;
    this.#keptStart = 0;
  }

  #keepSlab(): void {
    if (this.#kept === undefined) return;
    if (slabEnd > this.#keptStart) this.#kept.push(slab.subarray(this.#keptStart, slabEnd));
    this.#keptStart = slabEnd;
  }

  #cut(): void {
    if (slabEnd > this.#start) this.#parts.push(slab.subarray(this.#start, slabEnd));
    this.#start = slabEnd;
  }
}
