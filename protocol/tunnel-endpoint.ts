import { ZtnaError, type ErrorCode } from './errors.ts';
import {
  checkPlaintext,
  decodeClose,
  decodeCount,
  encodeClose,
  frameHeaderBytes,
  FrameType,
  readFrame,
  type CloseDetails,
  type Frame,
} from './frame.ts';
import { PathState } from './path-state.ts';
import { PathTraffic } from './path-traffic.ts';
import { RecordWriter } from './record-writer.ts';
import { ReplayLog } from './replay-log.ts';
import { SentFrames } from './sent-frames.ts';
import { defaultTunnelLimits } from './tunnel-limits.ts';
import { TunnelStreams } from './tunnel-streams.ts';
import type { VerifiedGrant } from './grant.ts';
import type { ResumedPath } from './resume.ts';
import type { TunnelStream } from './stream.ts';
import type { TunnelEndpointOptions } from './tunnel-options.ts';

/** The first version whose tunnels outlive their paths. */
const firstLastingVersion = 2;

/** The first whose ends tell each other what they hear, so that neither sends more than its path delivers soon. */
const firstPacedVersion = 3;

/**
 * One end of a tunnel: frames in and out, streams between. It has no crypto, socket, timer or clock: the owner passes
 * it opened records and the time, and seals what it pulls. `nowMs` is any clock that never falls.
 *
 *   client     waiting ──ACCEPT received──▶ open ──▶ closed      (waiting already sends)
 *   connector  open ──▶ closed                                    (its first frame is ACCEPT)
 *   any        ──close()──▶ closing ──CLOSE pulled──▶ closed      ──CLOSE received, abort()──▶ closed
 *
 * A tunnel outlives its paths, which come and go by detach() and resume() (PathState). Numbered frames are kept until
 * they are acknowledged, and sent again on the next path.
 */
export class TunnelEndpoint {
  /** What the tunnel was opened with. */
  readonly grant: VerifiedGrant<'client' | 'connector'>;
  readonly #options: TunnelEndpointOptions;
  readonly #record = new RecordWriter();

  #state: 'waiting' | 'open' | 'closing' | 'closed';
  #isAcceptDue: boolean;
  #closing: CloseDetails | undefined;
  #isOutputTold: boolean;

  readonly #path: PathState;
  readonly #streams: TunnelStreams;
  readonly #sent: SentFrames;
  readonly #traffic: PathTraffic;

  constructor(options: TunnelEndpointOptions) {
    this.#options = options;
    this.grant = options.role === 'client' ? options.permit.grant : options.grant;
    const limits = { ...defaultTunnelLimits, ...options.limits };
    const isLasting = this.grant.version >= firstLastingVersion;
    const isPaced = this.grant.version >= firstPacedVersion;
    this.#sent = new SentFrames(
      isLasting ? new ReplayLog(limits.replayBytes, options.replayBudget) : undefined,
      isPaced,
    );
    this.#path = new PathState(this.#sent);
    const onOutput = (): void => {
      this.#tellOutput();
    };
    this.#traffic = new PathTraffic({
      isPaced,
      sent: this.#sent,
      onOutput,
      unexpected: (what) => this.#unexpected(what),
    });
    this.#streams = new TunnelStreams({
      role: options.role,
      limits,
      budget: options.budget,
      sent: this.#sent,
      hasPath: () => this.#path.isThere,
      onOutput,
      onStream: (stream) => {
        if (options.role === 'connector') options.handlers.onStream(stream);
      },
      onData: (bytes, nowMs) => {
        this.#traffic.countData(bytes, nowMs);
      },
      error: (code, message) => this.#error(code, message),
    });
    this.#state = options.role === 'client' ? 'waiting' : 'open';
    this.#isAcceptDue = options.role === 'connector';
    this.#isOutputTold = this.#isAcceptDue; // the owner pulls once at the start
    if (this.#isAcceptDue) this.#traffic.startProbing();
  }

  /** Streams that are open now. */
  get streamCount(): number {
    return this.#streams.liveCount;
  }

  /** Streams that are over and wait to be acknowledged as such. */
  get lingeringStreamCount(): number {
    return this.#streams.lingeringCount;
  }

  /** True once nothing more moves, or will after the CLOSE that is still to be pulled. */
  get isClosed(): boolean {
    return this.#state === 'closing' || this.#state === 'closed';
  }

  /** True when the tunnel can be taken up on another path. */
  get isResumable(): boolean {
    return this.#sent.areKept && !this.isClosed;
  }

  /** True while there is no path. */
  get isDetached(): boolean {
    return !this.#path.isThere && !this.isClosed;
  }

  /** Bytes that the peer has not acknowledged: what would be sent again. */
  get unacknowledgedBytes(): number {
    return this.#sent.keptBytes;
  }

  /** Numbered frames sent and received so far: stands still while no stream moves. */
  get frameCount(): number {
    return this.#sent.last + this.#traffic.receivedNumber;
  }

  /** The path's least round trip seen, in milliseconds; undefined until measured. */
  get roundTripMs(): number | undefined {
    return this.#traffic.roundTripMs;
  }

  /** When `tick` must be called at the latest; undefined when nothing waits. */
  get nextDeadlineMs(): number | undefined {
    return this.isClosed || !this.#path.isUp ? undefined : this.#traffic.deadlineMs;
  }

  /**
   * Opens a stream; client only. It may be written to at once, also before the connector has accepted.
   * Throws ERR_TUNNEL_CLOSED, or ERR_LIMIT_STREAMS when too many are open or all ids are used up.
   */
  open(firstBytes?: Buffer): TunnelStream {
    if (this.#options.role !== 'client')
      throw this.#error('ERR_INTERNAL', 'only clients open streams');
    if (this.isClosed) throw this.#error('ERR_TUNNEL_CLOSED', 'the tunnel is closed');
    return this.#streams.open(firstBytes);
  }

  /**
   * Takes the plaintext of one record; views of it go to the streams. Throws a ZtnaError on any violation, after which
   * the owner closes the tunnel with that code. What arrives after the tunnel closed is ignored.
   */
  receive(plaintext: Buffer, nowMs: number): void {
    checkPlaintext(plaintext);
    if (this.isDetached) throw this.#error('ERR_INTERNAL', 'a record of a path that is gone');
    this.#traffic.noteRecord(nowMs);
    for (let offset = 0; offset < plaintext.length;) {
      if (this.isClosed) return; // before, or by a frame of this record
      const frame = readFrame(plaintext, offset);
      offset += frameHeaderBytes + frame.payload.length;
      this.#receiveFrame(frame, nowMs);
    }
    if (this.#traffic.isTellingDue) this.#tellOutput();
  }

  /** The parts of the next record's plaintext, to be sealed in a row; undefined when there is nothing to send. */
  pull(nowMs: number): Buffer[] | undefined {
    if (this.#state === 'closed') return undefined;
    if (this.#closing !== undefined) return this.#pullClose(this.#closing);
    if (!this.#path.isThere) return undefined;
    const record = this.#record;
    this.#path.addOpening(record, this.#traffic.receivedNumber);
    if (this.#path.isAnswered) return this.#finish(record);
    if (this.#addRepeated(record, nowMs)) return this.#finish(record);
    if (this.#isAcceptDue) record.addFrame(FrameType.Accept, 0, 0);
    this.#isAcceptDue = false;
    const { isTellingDue, hasNews } = this.#traffic;
    if (isTellingDue || (hasNews && this.#hasOutput)) this.#traffic.addHeard(record);
    this.#traffic.addProbes(record, nowMs);
    this.#traffic.addPaced(record, nowMs, (hasRoom) => {
      this.#streams.fill(record, nowMs, this.#traffic.roundTripMs, hasRoom);
    });
    const parts = this.#finish(record);
    this.#streams.tellWritable();
    return parts;
  }

  /** Adds what has to be sent again and may go now; false when there is nothing of it. */
  #addRepeated(record: RecordWriter, nowMs: number): boolean {
    const { isRepeating } = this.#sent;
    if (!isRepeating) return false;
    let hasAdded = false;
    this.#traffic.addPaced(record, nowMs, (hasRoom) => {
      hasAdded = hasRoom && this.#sent.addRepeated(record);
    });
    if (!this.#sent.isRepeating) this.#traffic.oweNumber();
    return hasAdded;
  }

  /**
   * The path is gone: nothing is pulled or received until `resume`, streams stay, what is written to them waits.
   * A tunnel that cannot be taken up again ends, as by `abort`.
   */
  detach(): void {
    if (!this.isResumable) {
      this.abort();
      return;
    }
    this.#path.leave();
    this.#leavePath();
  }

  /**
   * Goes on with another path, whose other end proved to be this tunnel's; the one before carries nothing any more,
   * even if it was not lost. Throws ERR_TUNNEL_CLOSED, and ERR_TUNNEL_RESUME_REFUSED for a peer that states to have what
   * was never sent, or less than it has acknowledged.
   */
  resume(path: ResumedPath): void {
    if (!this.isResumable) throw this.#error('ERR_TUNNEL_CLOSED', 'it has ended');
    if (path.role !== this.#options.role) throw this.#error('ERR_INTERNAL', 'the other role');
    this.#path.begin(path);
    this.#leavePath();
    this.#isOutputTold = true; // the owner pulls once at the start
    if (path.role === 'client') this.#repeatAbove(path.peerNumber);
  }

  /** What was under way on the path before is not. */
  #leavePath(): void {
    this.#sent.leavePath();
    this.#traffic.leavePath();
    this.#isAcceptDue = false;
  }

  /**
   * The peer has everything up to `number`; the rest goes out again, and with it what it may have missed of credit.
   * Streams wait for the ACK behind what the peer repeats: only then has it nothing more to say about one that is over.
   */
  #repeatAbove(number: number): void {
    this.#sent.repeatAbove(number);
    this.#traffic.oweNumber();
    this.#streams.tellCreditAnew();
    this.#traffic.startProbing();
    if (this.#state === 'waiting' && this.#options.role === 'client') {
      this.#state = 'open';
      this.#options.handlers.onAccept();
    }
    this.#tellOutput();
  }

  #finish(record: RecordWriter): Buffer[] | undefined {
    const parts = record.finish();
    if (parts === undefined) this.#isOutputTold = false;
    return parts;
  }

  /** Lets what is due by now become output. */
  tick(nowMs: number): void {
    if (this.isClosed || !this.#path.isUp) return;
    this.#traffic.tick(nowMs);
  }

  /** Closes the tunnel: resets all streams with `closed`; what is pulled next is the last record. */
  close(code: ErrorCode, reason: string): void {
    if (this.isClosed) return;
    if (!this.#path.isThere) {
      this.#end('closed');
      return;
    }
    this.#closing = { code, reason };
    this.#end('closing');
    this.#tellOutput();
  }

  /** Ends the tunnel without a word to the peer, as when its path is lost. Streams are reset with `closed`. */
  abort(): void {
    this.#closing = undefined;
    if (this.#state !== 'closed') this.#end('closed');
  }

  #pullClose(details: CloseDetails): Buffer[] | undefined {
    this.#closing = undefined;
    this.#state = 'closed';
    this.#record.addFrame(FrameType.Close, 0, 0, encodeClose(details));
    return this.#record.finish();
  }

  /**
   * How long something of ours has been under way without an answer, in milliseconds, though something was received
   * less than `withinMs` ago; 0 where nothing waits. Far above the round trip it shows a path whose queue is too long.
   */
  stuckMs(nowMs: number, withinMs: number): number {
    return this.#path.isUp && !this.isClosed ? this.#traffic.stuckMs(nowMs, withinMs) : 0;
  }

  get #hasOutput(): boolean {
    return !this.#record.isEmpty || this.#traffic.hasProbe || this.#streams.hasWork;
  }

  #receiveFrame(frame: Frame, nowMs: number): void {
    const { type, payload } = frame;
    if (this.#state === 'waiting' && type !== FrameType.Accept && type !== FrameType.Close) {
      throw this.#unexpected('a frame before ACCEPT');
    }
    const isAnswer = type === FrameType.Resumed || type === FrameType.Close;
    if (this.#path.isAnswered && !isAnswer) throw this.#unexpected('a frame before RESUMED');
    switch (type) {
      case FrameType.Open:
      case FrameType.Data:
      case FrameType.Fin:
      case FrameType.Reset:
        this.#streams.receive(this.#traffic.receiveNumbered(frame, nowMs), nowMs);
        return;
      case FrameType.Part:
        this.#streams.receive(this.#traffic.receivePart(frame, nowMs), nowMs);
        return;
      case FrameType.Heard:
        this.#traffic.receiveHeard(payload, nowMs);
        return;
      case FrameType.Ack:
        this.#receiveAck(frame.number);
        return;
      case FrameType.Credit:
        this.#streams.receiveCredit(frame.stream, decodeCount(payload));
        return;
      case FrameType.Accept:
        this.#receiveAccept();
        return;
      case FrameType.Close:
        this.#receiveClose(decodeClose(payload));
        return;
      case FrameType.Probe:
        this.#traffic.receiveProbe(payload);
        return;
      case FrameType.ProbeReply:
        this.#traffic.receiveProbeReply(payload, nowMs);
        return;
      case FrameType.Resume:
        throw this.#unexpected('RESUME');
      case FrameType.Resumed:
        this.#receiveResumed(decodeCount(payload));
        return;
    }
  }

  #receiveResumed(number: number): void {
    if (!this.#path.isAnswered) throw this.#unexpected('RESUMED');
    this.#path.confirm(number);
    this.#repeatAbove(number);
  }

  #receiveAck(number: number): void {
    if (!this.#sent.acknowledge(number)) throw this.#unexpected('an ACK of what was never sent');
    this.#streams.acknowledge(number);
  }

  #receiveAccept(): void {
    if (this.#options.role === 'connector' || this.#state !== 'waiting') {
      throw this.#unexpected('ACCEPT');
    }
    this.#state = 'open';
    this.#traffic.startProbing();
    this.#tellOutput();
    this.#options.handlers.onAccept();
  }

  #receiveClose({ code, reason }: CloseDetails): void {
    this.#end('closed');
    this.#options.handlers.onClose(code, reason);
  }

  #end(state: 'closing' | 'closed'): void {
    this.#state = state;
    this.#sent.clear();
    this.#streams.end();
  }

  #tellOutput(): void {
    if (this.#isOutputTold || this.#state === 'closed') return;
    this.#isOutputTold = true;
    this.#options.handlers.onOutput();
  }

  #unexpected(what: string): ZtnaError {
    return this.#error('ERR_FRAME_UNEXPECTED', `a frame came at the wrong moment: ${what}`);
  }

  #error(code: ErrorCode, message: string): ZtnaError {
    return new ZtnaError(code, {
      message: `${message} (${this.grant.tunnel})`,
      ref: this.grant.decision,
    });
  }
}
