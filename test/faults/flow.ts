/**
 * What one TCP connection of the harness carries, made so that its receiver can prove every byte: cells of a fixed size,
 * each with a header and a piece of a fixed table that depends on flow, direction and number.
 *
 *   greeting   'FLOW' | flow u32 | cell bytes u32 | milliseconds between cells u32 | bytes wanted back f64
 *              or 'ECHO' and zeros: whatever follows comes back
 *   cell       flags u32 | flow × 2 + direction u32 | number f64 | sent at (milliseconds of wall clock) f64 | table
 */
import { createCipheriv, createHash, type Hash } from 'node:crypto';
import type { Socket } from 'node:net';

export const greetingBytes = 24;
const headerBytes = 24;
const magic = 0x464c4f57;
const echoMagic = 0x4543484f;
const moreFlag = 0x43454c4c;
const finalFlag = 0x454e4421;

/** A sender told to stop ends behind the cell that it is at. */
export const untilStopped = Number.MAX_SAFE_INTEGER;

/** Gaps between arrivals shorter than this are not kept. */
const leastGapMs = 50;
const mostGaps = 5_000;

const mostCellsAtOnce = 16;

const table = createCipheriv('aes-128-ctr', Buffer.alloc(16, 7), Buffer.alloc(16)).update(
  Buffer.alloc(2 ** 21),
);

export type Direction = 'up' | 'down';

/** What both ends know of a flow. */
export interface FlowSpec {
  readonly flow: number;
  readonly cellBytes: number;
  /** Pause between two cells; 0: as fast as it goes. */
  readonly intervalMs: number;
  readonly upBytes: number;
  readonly downBytes: number;
}

export type FlowEnd = 'open' | 'clean' | 'truncated' | 'reset';

/** What one end of a flow saw. Instants are milliseconds of this machine's wall clock. */
export interface FlowReport {
  readonly flow: number;
  readonly sentBytes: number;
  readonly sentDigest: string;
  /** The last cell of this end has been handed to the socket. */
  readonly hasSentAll: boolean;
  readonly receivedBytes: number;
  readonly receivedDigest: string;
  /** The first byte that is not what it must be, told in words; null while all is well. */
  readonly violation: string | null;
  /** How what the other end sends ended: with its last cell, without it, or by a reset. */
  readonly end: FlowEnd;
  readonly gaps: readonly { readonly fromMs: number; readonly toMs: number }[];
  /** The longest that a cell was on its way. */
  readonly maxAgeMs: number;
  readonly lastAtMs: number;
  readonly endedAtMs: number | null;
}

function tableFor(flow: number, direction: Direction, number: number, bytes: number): Buffer {
  const room = table.length - bytes;
  const at = (number * 40_503 + flow * 65_521 + (direction === 'up' ? 0 : 32_749)) % room;
  return table.subarray(at, at + bytes);
}

const directionBit = (direction: Direction): number => (direction === 'up' ? 0 : 1);

export function encodeEchoGreeting(): Buffer {
  const greeting = Buffer.alloc(greetingBytes);
  greeting.writeUInt32BE(echoMagic, 0);
  return greeting;
}

export function isEchoGreeting(greeting: Buffer): boolean {
  return greeting.equals(encodeEchoGreeting());
}

export function encodeGreeting(spec: FlowSpec): Buffer {
  const greeting = Buffer.alloc(greetingBytes);
  greeting.writeUInt32BE(magic, 0);
  greeting.writeUInt32BE(spec.flow, 4);
  greeting.writeUInt32BE(spec.cellBytes, 8);
  greeting.writeUInt32BE(spec.intervalMs, 12);
  greeting.writeDoubleBE(spec.downBytes, 16);
  return greeting;
}

/** Undefined for bytes that are no greeting. */
export function decodeGreeting(greeting: Buffer): FlowSpec | undefined {
  if (greeting.readUInt32BE(0) !== magic) return undefined;
  return {
    flow: greeting.readUInt32BE(4),
    cellBytes: greeting.readUInt32BE(8),
    intervalMs: greeting.readUInt32BE(12),
    upBytes: untilStopped,
    downBytes: greeting.readDoubleBE(16),
  };
}

/** Sends one direction of a flow, no faster than the socket takes it. */
class FlowSender {
  readonly #socket: Socket;
  readonly #spec: FlowSpec;
  readonly #direction: Direction;
  readonly #cells: number;
  readonly #digest = createHash('sha256');
  #number = 0;
  #isStopping = false;
  #timer: NodeJS.Timeout | undefined;
  #intervalMs: number;
  sentBytes = 0;
  hasSentAll = false;

  constructor(socket: Socket, spec: FlowSpec, direction: Direction) {
    this.#socket = socket;
    this.#spec = spec;
    this.#direction = direction;
    this.#intervalMs = spec.intervalMs;
    const bytes = direction === 'up' ? spec.upBytes : spec.downBytes;
    this.#cells = Math.max(1, Math.ceil(bytes / spec.cellBytes));
  }

  digest(): string {
    return this.#digest.copy().digest('hex');
  }

  readonly run = (): void => {
    for (let cells = 0; !this.hasSentAll && !this.#socket.destroyed; cells++) {
      if (!this.#sendCell()) {
        this.#socket.once('drain', this.#intervalMs > 0 ? this.#runLater : this.run);
        return;
      }
      if (this.#intervalMs > 0) {
        this.#runLater();
        return;
      }
      if (cells < mostCellsAtOnce) continue;
      setImmediate(this.run); // a socket that takes everything must not keep commands waiting
      return;
    }
  };

  readonly #runLater = (): void => {
    this.#timer = setTimeout(this.run, this.#intervalMs);
  };

  /** Changes the pause between two cells. */
  pace(intervalMs: number): void {
    this.#intervalMs = intervalMs;
  }

  /** The next cell is the last. */
  stop(): void {
    if (this.#isStopping) return;
    this.#isStopping = true;
    if (this.#timer === undefined || this.#socket.writableNeedDrain) return;
    clearTimeout(this.#timer);
    this.run();
  }

  #sendCell(): boolean {
    const { flow, cellBytes } = this.#spec;
    const isFinal = this.#isStopping || this.#number + 1 >= this.#cells;
    const header = Buffer.allocUnsafe(headerBytes);
    header.writeUInt32BE(isFinal ? finalFlag : moreFlag, 0);
    header.writeUInt32BE(flow * 2 + directionBit(this.#direction), 4);
    header.writeDoubleBE(this.#number, 8);
    header.writeDoubleBE(Date.now(), 16);
    const body = tableFor(flow, this.#direction, this.#number, cellBytes - headerBytes);
    this.#digest.update(header).update(body);
    this.#number++;
    this.sentBytes += cellBytes;
    this.#socket.cork();
    this.#socket.write(header);
    const isTaken = this.#socket.write(body);
    this.#socket.uncork();
    if (!isFinal) return isTaken;
    this.hasSentAll = true;
    this.#socket.end();
    return true;
  }
}

/** Takes one direction of a flow and proves each byte against what it must be. */
export class FlowReceiver {
  readonly #spec: FlowSpec;
  readonly #direction: Direction;
  readonly #digest: Hash = createHash('sha256');
  readonly #header = Buffer.alloc(headerBytes);
  #at = 0; // within the cell
  #number = 0;
  #body: Buffer = table;
  #hasFinal = false;
  receivedBytes = 0;
  violation: string | null = null;
  readonly gaps: { fromMs: number; toMs: number }[] = [];
  maxAgeMs = 0;
  lastAtMs = Date.now();

  constructor(spec: FlowSpec, direction: Direction) {
    this.#spec = spec;
    this.#direction = direction;
  }

  /** The sender's last cell is here, whole. */
  get isComplete(): boolean {
    return this.#hasFinal && this.#at === 0;
  }

  digest(): string {
    return this.#digest.copy().digest('hex');
  }

  receive(chunk: Buffer): void {
    const nowMs = Date.now();
    if (nowMs - this.lastAtMs >= leastGapMs && this.gaps.length < mostGaps)
      this.gaps.push({ fromMs: this.lastAtMs, toMs: nowMs });
    this.lastAtMs = nowMs;
    this.#digest.update(chunk);
    let rest = chunk;
    while (rest.length > 0 && this.violation === null) {
      if (this.isComplete) this.#fail('more bytes follow the last cell');
      else if (this.#at < headerBytes) rest = this.#takeHeader(rest, nowMs);
      else rest = this.#takeBody(rest);
    }
    this.receivedBytes += chunk.length;
  }

  #takeHeader(rest: Buffer, nowMs: number): Buffer {
    const taken = rest.subarray(0, headerBytes - this.#at);
    taken.copy(this.#header, this.#at);
    this.#at += taken.length;
    if (this.#at === headerBytes) this.#checkHeader(nowMs);
    return rest.subarray(taken.length);
  }

  #checkHeader(nowMs: number): void {
    const { flow, cellBytes } = this.#spec;
    const flags = this.#header.readUInt32BE(0);
    const number = this.#header.readDoubleBE(8);
    const owner = flow * 2 + directionBit(this.#direction);
    if (flags !== moreFlag && flags !== finalFlag) this.#fail('corrupted: no cell begins here');
    else if (this.#header.readUInt32BE(4) !== owner) this.#fail('bytes of another flow');
    else if (number !== this.#number)
      this.#fail(
        `cell ${number} where ${this.#number} belongs: ${number > this.#number ? 'lost or reordered' : 'duplicated or reordered'}`,
      );
    this.#hasFinal = flags === finalFlag;
    this.#body = tableFor(flow, this.#direction, this.#number, cellBytes - headerBytes);
    this.maxAgeMs = Math.max(this.maxAgeMs, nowMs - this.#header.readDoubleBE(16));
  }

  #takeBody(rest: Buffer): Buffer {
    const from = this.#at - headerBytes;
    const taken = rest.subarray(0, this.#body.length - from);
    if (!taken.equals(this.#body.subarray(from, from + taken.length)))
      this.#fail(`corrupted: cell ${this.#number} is not what was sent`);
    this.#at += taken.length;
    if (this.#at === this.#spec.cellBytes) {
      this.#at = 0;
      this.#number++;
    }
    return rest.subarray(taken.length);
  }

  #fail(what: string): void {
    this.violation = `${this.#direction}, byte ${this.receivedBytes} and on: ${what}`;
  }
}

/** Both directions of a flow at one end: `up` is what the client's end sends. */
export class FlowSocket {
  readonly spec: FlowSpec;
  readonly ended: Promise<void>;
  readonly #sender: FlowSender;
  readonly #receiver: FlowReceiver;
  #end: FlowEnd = 'open';
  #endedAtMs: number | null = null;

  constructor(socket: Socket, spec: FlowSpec, sends: Direction) {
    this.spec = spec;
    this.#sender = new FlowSender(socket, spec, sends);
    this.#receiver = new FlowReceiver(spec, sends === 'up' ? 'down' : 'up');
    socket.on('data', (chunk: Buffer) => {
      this.#receiver.receive(chunk);
      // One that would send for ever ends with its counterpart.
      if (this.#receiver.isComplete && spec.downBytes === untilStopped) this.stop();
    });
    socket.once('end', () => {
      this.#settle(this.#receiver.isComplete ? 'clean' : 'truncated');
    });
    socket.on('error', () => {
      this.#settle('reset');
    });
    this.ended = new Promise((resolve) => {
      socket.once('close', () => {
        this.#settle('reset');
        resolve();
      });
    });
    this.#sender.run();
  }

  #settle(end: FlowEnd): void {
    // A reset behind a clean end still cuts what this side has not delivered.
    const isWorse = this.#end === 'clean' && end === 'reset' && !this.#sender.hasSentAll;
    if (this.#end !== 'open' && !isWorse) return;
    this.#end = end;
    this.#endedAtMs = Date.now();
  }

  stop(): void {
    this.#sender.stop();
  }

  pace(intervalMs: number): void {
    this.#sender.pace(intervalMs);
  }

  report(): FlowReport {
    const { receivedBytes, violation, gaps, maxAgeMs, lastAtMs } = this.#receiver;
    return {
      flow: this.spec.flow,
      sentBytes: this.#sender.sentBytes,
      sentDigest: this.#sender.digest(),
      hasSentAll: this.#sender.hasSentAll,
      receivedBytes,
      receivedDigest: this.#receiver.digest(),
      violation,
      end: this.#end,
      gaps,
      maxAgeMs,
      lastAtMs,
      endedAtMs: this.#endedAtMs,
    };
  }
}
