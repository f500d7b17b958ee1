import { ZtnaError, isErrorCode, type ErrorCode } from './errors.ts';

/**
 * The frames of a tunnel. The plaintext of a record is one or more whole frames; all integers are big endian.
 *
 *   frame   = type u8 | payload length u24 | stream u32 | number u64 | payload
 *   stream  = 0 for frames of the tunnel, else an odd id, chosen by the client, ascending, never used again
 *   number  = 1, 2, 3 … over the OPEN, DATA, FIN and RESET frames of one direction of the tunnel; 0 where noted
 */
export const FrameType = {
  Open: 0x01, //       stream, numbered | payload: the stream's first bytes, 0 to 65,503; client only
  Data: 0x02, //       stream, numbered | payload: the stream's next bytes, 1 to 65,503
  Fin: 0x03, //        stream, numbered | no payload: this direction of the stream is complete
  Reset: 0x04, //      stream, numbered | code u16: both directions of the stream end here
  Ack: 0x05, //        stream 0, number = the highest number received in order, at least 1 | no payload
  Credit: 0x06, //     stream, number 0 | limit u64, at most 2^53 - 1: bytes the stream may send in all; never falls
  Resume: 0x07, //     stream 0, number 0 | proof, 32 bytes: each end's first frame on a later path of the tunnel
  Accept: 0x08, //     stream 0, number 0 | no payload: the connector's first frame
  Close: 0x09, //      stream 0, number 0 | error code, NUL, reason, in ASCII, at most 129 bytes: the last frame
  Probe: 0x0a, //      stream 0, number 0 | 8 bytes of the sender's choice, one probe at a time
  ProbeReply: 0x0b, // stream 0, number 0 | the same 8 bytes
  Resumed: 0x0c, //    stream 0, number 0 | u64, at most 2^53 - 1: the highest number received in order on earlier paths
  Heard: 0x0d, //      stream 0, number 0 | u64, at most 2^53 - 1: bytes of numbered frames and parts received on this path
  Part: 0x0e, //       stream, number of the DATA frame that brings the rest | that frame's next bytes, 1 to 65,503
} as const;
export type FrameType = (typeof FrameType)[keyof typeof FrameType];

/** Bytes of a frame before its payload. */
export const frameHeaderBytes = 16;

/** The most plaintext one record carries: what Noise's 65,535 leaves beside the tag. */
export const maxPlaintextBytes = 65_519;

/** The most payload one frame carries. */
export const maxPayloadBytes = maxPlaintextBytes - frameHeaderBytes;

/** One frame as read; `payload` is a view of the record's plaintext, not a copy. */
export interface Frame {
  readonly type: FrameType;
  readonly stream: number;
  readonly number: number;
  readonly payload: Buffer;
}

interface Shape {
  readonly isNumbered: boolean;
  readonly isOfStream: boolean;
  readonly minBytes: number;
  readonly maxBytes: number;
}

const maxCloseBytes = 129;
const resumeProofBytes = 32;

/** Indexed by frame type. */
const shapes: readonly (Shape | undefined)[] = [
  undefined,
  { isNumbered: true, isOfStream: true, minBytes: 0, maxBytes: maxPayloadBytes }, // Open
  { isNumbered: true, isOfStream: true, minBytes: 1, maxBytes: maxPayloadBytes }, // Data
  { isNumbered: true, isOfStream: true, minBytes: 0, maxBytes: 0 }, // Fin
  { isNumbered: true, isOfStream: true, minBytes: 2, maxBytes: 2 }, // Reset
  { isNumbered: true, isOfStream: false, minBytes: 0, maxBytes: 0 }, // Ack
  { isNumbered: false, isOfStream: true, minBytes: 8, maxBytes: 8 }, // Credit
  { isNumbered: false, isOfStream: false, minBytes: resumeProofBytes, maxBytes: resumeProofBytes }, // Resume
  { isNumbered: false, isOfStream: false, minBytes: 0, maxBytes: 0 }, // Accept
  { isNumbered: false, isOfStream: false, minBytes: 1, maxBytes: maxCloseBytes }, // Close
  { isNumbered: false, isOfStream: false, minBytes: 8, maxBytes: 8 }, // Probe
  { isNumbered: false, isOfStream: false, minBytes: 8, maxBytes: 8 }, // ProbeReply
  { isNumbered: false, isOfStream: false, minBytes: 8, maxBytes: 8 }, // Resumed
  { isNumbered: false, isOfStream: false, minBytes: 8, maxBytes: 8 }, // Heard
  { isNumbered: true, isOfStream: true, minBytes: 1, maxBytes: maxPayloadBytes }, // Part
];

function malformed(what: string): ZtnaError {
  return new ZtnaError('ERR_FRAME_MALFORMED', { message: `a frame could not be read: ${what}` });
}

/** A u64 that must be a safe integer. Throws ERR_FRAME_MALFORMED. */
function readSafe(bytes: Buffer, offset: number): number {
  const high = bytes.readUInt32BE(offset);
  if (high > 0x1f_ffff) throw malformed('a number above 2^53 - 1');
  return high * 0x1_0000_0000 + bytes.readUInt32BE(offset + 4);
}

/**
 * Reads the frame that starts at `offset`; the next one starts behind its payload. It judges the frame by itself,
 * not whether it may come at this moment. Throws ERR_FRAME_MALFORMED.
 */
export function readFrame(plaintext: Buffer, offset: number): Frame {
  if (plaintext.length - offset < frameHeaderBytes) throw malformed('a header cut short');
  const first = plaintext.readUInt32BE(offset);
  const type = first >>> 24;
  const length = first & 0xff_ffff;
  const stream = plaintext.readUInt32BE(offset + 4);
  const number = readSafe(plaintext, offset + 8);
  const start = offset + frameHeaderBytes;
  const shape = shapes[type];
  if (shape === undefined) throw malformed('unknown type');
  if (length < shape.minBytes || length > shape.maxBytes) throw malformed('payload length');
  if (length > plaintext.length - start) throw malformed('a payload cut short');
  if (shape.isOfStream !== stream > 0) throw malformed('stream id');
  if (shape.isNumbered !== number > 0) throw malformed('frame number');
  return {
    type: type as FrameType,
    stream,
    number,
    payload: plaintext.subarray(start, start + length),
  };
}

/** Every frame of a record's plaintext. Throws ERR_FRAME_MALFORMED, also for an empty or oversized plaintext. */
export function readFrames(plaintext: Buffer): Frame[] {
  checkPlaintext(plaintext);
  const frames: Frame[] = [];
  for (let offset = 0; offset < plaintext.length;) {
    const frame = readFrame(plaintext, offset);
    frames.push(frame);
    offset += frameHeaderBytes + frame.payload.length;
  }
  return frames;
}

/** Refuses a plaintext that no record may carry. Throws ERR_FRAME_MALFORMED. */
export function checkPlaintext(plaintext: Buffer): void {
  if (plaintext.length === 0) throw malformed('an empty record');
  if (plaintext.length > maxPlaintextBytes) throw malformed('a record above the limit');
}

/** Writes a frame's header at `offset`; its payload follows. */
export function writeFrameHeader(
  target: Buffer,
  offset: number,
  type: FrameType,
  length: number,
  stream: number,
  number: number,
): void {
  target.writeUInt32BE(type * 0x100_0000 + length, offset);
  target.writeUInt32BE(stream, offset + 4);
  writeSafe(target, offset + 8, number);
}

function writeSafe(target: Buffer, offset: number, value: number): void {
  target.writeUInt32BE(Math.floor(value / 0x1_0000_0000), offset);
  target.writeUInt32BE(value % 0x1_0000_0000, offset + 4);
}

/** A whole frame in one buffer: for small frames and tests. */
export function encodeFrame(
  type: FrameType,
  stream: number,
  number: number,
  payload: Uint8Array = Buffer.alloc(0),
): Buffer {
  const frame = Buffer.allocUnsafe(frameHeaderBytes + payload.length);
  writeFrameHeader(frame, 0, type, payload.length, stream, number);
  frame.set(payload, frameHeaderBytes);
  return frame;
}

/** Why both directions of a stream ended. */
const resetCodes = {
  refused: 0x0001, //     the app refused the connection
  unreachable: 0x0002, // the app could not be reached
  reset: 0x0003, //       the connection was reset at the sender's side
  limit: 0x0004, //       the sender has no room for another stream
  overrun: 0x0005, //     the sender could not keep up with what it had promised
  internal: 0x0006, //    the sender failed
  closed: 0x0007, //      the tunnel, or the sender's interest in the stream, ended
} as const;
export type ResetCode = keyof typeof resetCodes;

const resetNames = new Map<number, ResetCode>(
  (Object.keys(resetCodes) as ResetCode[]).map((name) => [resetCodes[name], name]),
);

/** Payload of RESET. */
export function encodeReset(code: ResetCode): Buffer {
  const payload = Buffer.allocUnsafe(2);
  payload.writeUInt16BE(resetCodes[code]);
  return payload;
}

/** Reads the payload of RESET. Throws ERR_FRAME_MALFORMED. */
export function decodeReset(payload: Buffer): ResetCode {
  const name = resetNames.get(payload.readUInt16BE(0));
  if (name === undefined) throw malformed('reset code');
  return name;
}

/** Payload of CREDIT, RESUMED and HEARD. */
export function encodeCount(count: number): Buffer {
  const payload = Buffer.allocUnsafe(8);
  writeSafe(payload, 0, count);
  return payload;
}

/** Reads the payload of CREDIT, RESUMED or HEARD. Throws ERR_FRAME_MALFORMED. */
export function decodeCount(payload: Buffer): number {
  return readSafe(payload, 0);
}

/** Payload of RESUME. Throws ERR_INTERNAL for a proof of another length. */
export function encodeResume(proof: Buffer): Buffer {
  if (proof.length !== resumeProofBytes) {
    throw new ZtnaError('ERR_INTERNAL', { message: 'a proof of another length' });
  }
  return proof;
}

export interface CloseDetails {
  readonly code: ErrorCode;
  /** A `snake_case` word. */
  readonly reason: string;
}

const closePattern = /^(ERR_[A-Z_]{1,60})\0([a-z][a-z0-9_]{0,63})$/;

/** Payload of CLOSE. Throws ERR_INTERNAL for a reason that is not `snake_case`. */
export function encodeClose({ code, reason }: CloseDetails): Buffer {
  const text = `${code}\0${reason}`;
  if (!closePattern.test(text)) throw new ZtnaError('ERR_INTERNAL', { message: 'close reason' });
  return Buffer.from(text, 'latin1');
}

/** Reads the payload of CLOSE; a code outside the table becomes ERR_TUNNEL_CLOSED. Throws ERR_FRAME_MALFORMED. */
export function decodeClose(payload: Buffer): CloseDetails {
  const match = closePattern.exec(payload.toString('latin1'));
  if (match === null) throw malformed('close details');
  const [, code = '', reason = ''] = match;
  return { code: isErrorCode(code) ? code : 'ERR_TUNNEL_CLOSED', reason };
}
