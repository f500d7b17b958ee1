import { decodeCount, encodeCount, frameHeaderBytes, FrameType, type Frame } from './frame.ts';
import { Flight } from './flight.ts';
import { ReceivedNumbers } from './received-numbers.ts';
import { ReceivedParts } from './received-parts.ts';
import { RoundTrip } from './round-trip.ts';
import type { ZtnaError } from './errors.ts';
import type { RecordWriter } from './record-writer.ts';
import type { SentFrames } from './sent-frames.ts';

export interface PathTrafficOptions {
  /** Both ends tell what they hear, and send no more than their path delivers soon. */
  readonly isPaced: boolean;
  readonly sent: SentFrames;
  /** Something is to be told, or may be sent again. */
  readonly onOutput: () => void;
  readonly unexpected: (what: string) => ZtnaError;
}

/**
 * What passes on the present path of a tunnel, below its streams: how much of it arrived here and is to be told, how
 * much may be under way to the peer, and how long the way is.
 */
export class PathTraffic {
  readonly #options: PathTrafficOptions;
  readonly #received: ReceivedNumbers;
  readonly #parts = new ReceivedParts();
  readonly #roundTrip = new RoundTrip();
  /** Undefined where the peer does not tell what it hears. */
  readonly #flight: Flight | undefined;
  #probeToAnswer: Buffer | undefined;
  #heardAtMs = -Infinity;

  constructor(options: PathTrafficOptions) {
    this.#options = options;
    this.#flight = options.isPaced ? new Flight() : undefined;
    this.#received = new ReceivedNumbers(options.isPaced);
  }

  /** The highest number received in order, on this path and those before. */
  get receivedNumber(): number {
    return this.#received.last;
  }

  /** The least round trip seen on the path, in milliseconds; undefined until measured. */
  get roundTripMs(): number | undefined {
    return this.#roundTrip.minimumMs;
  }

  /** When `tick` must be called at the latest; undefined when nothing waits. */
  get deadlineMs(): number | undefined {
    return this.#received.deadlineMs;
  }

  /** True when a probe, or the answer to one, is to go out. */
  get hasProbe(): boolean {
    return this.#roundTrip.isProbeDue || this.#probeToAnswer !== undefined;
  }

  /** True when the peer is to be told what arrived, also without anything else to send. */
  get isTellingDue(): boolean {
    return this.#received.isDue;
  }

  /** True when there is something to tell beside what is sent anyway. */
  get hasNews(): boolean {
    return this.#received.hasNew;
  }

  /** Another path begins, or there is none. */
  leavePath(): void {
    this.#received.leavePath();
    this.#parts.leavePath();
    this.#flight?.reset();
    this.#roundTrip.reset();
    this.#probeToAnswer = undefined;
  }

  /** Asks for a probe now. */
  startProbing(): void {
    this.#roundTrip.start();
  }

  /** Bytes of app data arrived. */
  countData(bytes: number, nowMs: number): void {
    if (this.#roundTrip.countData(bytes, nowMs)) this.#options.onOutput();
  }

  /** Makes a word of the last number due though it may be nothing new. */
  oweNumber(): void {
    this.#received.owe();
  }

  tick(nowMs: number): void {
    this.#received.tick(nowMs);
    if (this.#received.isDue) this.#options.onOutput();
  }

  /** Lets `add` fill the record with numbered frames as far as the path has room for them now. */
  addPaced(record: RecordWriter, nowMs: number, add: (hasRoom: boolean) => void): void {
    const { sent } = this.#options;
    const roomBytes = this.#flight?.roomBytes ?? Infinity;
    const beforeBytes = sent.pathBytes;
    if (roomBytes > 0) record.limitRoom(roomBytes);
    add(roomBytes > 0);
    this.#flight?.add(sent.pathBytes - beforeBytes, nowMs);
  }

  /** No ACK while something is still to be sent again: it says that there is nothing more to say of what is over. */
  addHeard(record: RecordWriter): void {
    const { number, bytes } = this.#received.tell(!this.#options.sent.isRepeating);
    if (number !== undefined) record.addFrame(FrameType.Ack, 0, number);
    if (bytes !== undefined) record.addFrame(FrameType.Heard, 0, 0, encodeCount(bytes));
  }

  addProbes(record: RecordWriter, nowMs: number): void {
    if (this.#probeToAnswer !== undefined) {
      record.addFrame(FrameType.ProbeReply, 0, 0, this.#probeToAnswer);
    }
    this.#probeToAnswer = undefined;
    const payload = this.#roundTrip.takeProbe(nowMs);
    if (payload !== undefined) record.addFrame(FrameType.Probe, 0, 0, payload);
  }

  /** A record arrived. */
  noteRecord(nowMs: number): void {
    this.#heardAtMs = nowMs;
  }

  /** Takes OPEN, DATA, FIN or RESET; answers it with the payload that is new. Throws ERR_FRAME_UNEXPECTED. */
  receiveNumbered(frame: Frame, nowMs: number): Frame {
    const { type, stream, number, payload } = frame;
    if (!this.#received.receive(number, frameHeaderBytes + payload.length, nowMs)) {
      throw this.#options.unexpected('a frame number out of order');
    }
    if (!this.#parts.isOpen) return frame;
    const fresh = type === FrameType.Data ? this.#parts.take(number, stream, payload) : undefined;
    if (!fresh) throw this.#options.unexpected('another frame than that of the parts');
    this.#parts.finish();
    return { ...frame, payload: fresh };
  }

  /** Takes a part of the next DATA frame; answers, as DATA, what of it is new. Throws ERR_FRAME_UNEXPECTED. */
  receivePart(frame: Frame, nowMs: number): Frame {
    const { stream, number, payload } = frame;
    const isNext = this.#flight !== undefined && number === this.#received.last + 1;
    const fresh = isNext ? this.#parts.take(number, stream, payload) : undefined;
    if (!fresh) throw this.#options.unexpected('PART');
    this.#received.count(frameHeaderBytes + payload.length, nowMs);
    return { ...frame, type: FrameType.Data, payload: fresh };
  }

  /** Throws ERR_FRAME_UNEXPECTED. */
  receiveHeard(payload: Buffer, nowMs: number): void {
    const wasFull = this.#flight?.roomBytes === 0;
    if (this.#flight?.heard(decodeCount(payload), nowMs) !== true) {
      throw this.#options.unexpected('HEARD');
    }
    if (wasFull) this.#options.onOutput();
  }

  /** Throws ERR_FRAME_UNEXPECTED. */
  receiveProbe(payload: Buffer): void {
    if (this.#probeToAnswer !== undefined) throw this.#options.unexpected('a second probe');
    this.#probeToAnswer = Buffer.from(payload);
    this.#options.onOutput();
  }

  /** Throws ERR_FRAME_UNEXPECTED. */
  receiveProbeReply(payload: Buffer, nowMs: number): void {
    const roundTripMs = this.#roundTrip.reply(payload, nowMs);
    if (roundTripMs === undefined) throw this.#options.unexpected('a reply to no probe');
    this.#flight?.learnRoundTrip(roundTripMs, nowMs);
  }

  /** As `TunnelEndpoint.stuckMs`. */
  stuckMs(nowMs: number, withinMs: number): number {
    if (!this.#flight || nowMs - this.#heardAtMs >= withinMs) return 0;
    const sinceMs = Math.min(
      this.#flight.oldestAtMs ?? Infinity,
      this.#roundTrip.waitingSinceMs ?? Infinity,
    );
    return Math.max(0, nowMs - sinceMs);
  }
}
