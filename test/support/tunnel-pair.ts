import { decodeCount, FrameType, readFrames } from '../../protocol/frame.ts';
import { newId } from '../../protocol/id.ts';
import { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';
import type { ResumedPath } from '../../protocol/resume.ts';
import type { VerifiedGrant, VerifiedPermit } from '../../protocol/grant.ts';
import type { ByteBudget } from '../../protocol/window.ts';
import type { StreamHandlers, TunnelStream } from '../../protocol/stream.ts';
import type { TunnelHandlers } from '../../protocol/tunnel-options.ts';
import type { TunnelLimits } from '../../protocol/tunnel-limits.ts';

const ids = { tunnel: newId('tunnel'), decision: newId('decision') };

/** Proofs for tests of what comes after them. */
export const testGrant = ids as unknown as VerifiedGrant<'connector'>;
export const testPermit = { grant: ids } as unknown as VerifiedPermit;

/** The same for a tunnel that outlives its paths. */
export const lastingGrant = { ...ids, version: 2 } as unknown as VerifiedGrant<'connector'>;
export const lastingPermit = { grant: lastingGrant } as unknown as VerifiedPermit;

/** And for one whose ends also tell what they hear. */
const pacedGrant = { ...ids, version: 3 } as unknown as VerifiedGrant<'connector'>;
const grants = { brief: testGrant, lasting: lastingGrant, paced: pacedGrant } as const;

/** What a tunnel's version makes of it. */
export type TunnelKind = keyof typeof grants;

/** What both ends hold once a new path has proved itself, in place of the proofs. */
export function resumedConnector(): ResumedPath {
  return { role: 'connector', proof: Buffer.alloc(32) } as unknown as ResumedPath;
}
export function resumedClient(peerNumber: number): ResumedPath {
  return { role: 'client', peerNumber } as unknown as ResumedPath;
}

/** Notes all that a stream tells; hands credit back at once unless told otherwise. */
export class StreamLog implements StreamHandlers {
  readonly stream: TunnelStream;
  readonly events: string[] = [];
  readonly #chunks: Buffer[] = [];
  readonly #isReading: boolean;
  receivedBytes = 0;

  constructor(stream: TunnelStream, { isReading = true } = {}) {
    this.stream = stream;
    this.#isReading = isReading;
    stream.attach(this);
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  onData(chunk: Buffer): void {
    this.#chunks.push(Buffer.from(chunk));
    this.receivedBytes += chunk.length;
    if (this.#isReading) this.stream.consumed(chunk.length);
  }

  onEnd(): void {
    this.events.push('end');
  }

  onReset(code: string): void {
    this.events.push(`reset ${code}`);
  }

  onWritable(): void {
    this.events.push('writable');
  }
}

export interface TunnelPairOptions {
  readonly limits?: Partial<TunnelLimits>;
  readonly budget?: ByteBudget;
  readonly replayBudget?: ByteBudget;
  /** By default its path is its end; others outlive it. */
  readonly kind?: TunnelKind;
  /** What the connector does with a stream; without it a StreamLog that reads is kept in `served`. */
  readonly onStream?: (stream: TunnelStream) => void;
}

/** Two ends of one tunnel, joined by nothing but the test. */
export class TunnelPair {
  readonly client: TunnelEndpoint;
  readonly connector: TunnelEndpoint;
  readonly served: StreamLog[] = [];
  readonly events: string[] = [];
  nowMs = 1_000;

  constructor({
    limits = {},
    budget,
    replayBudget,
    kind = 'brief',
    onStream,
  }: TunnelPairOptions = {}) {
    const common = { limits, ...(budget && { budget }), ...(replayBudget && { replayBudget }) };
    this.client = new TunnelEndpoint({
      ...common,
      role: 'client',
      permit: { grant: grants[kind] } as unknown as VerifiedPermit,
      handlers: { ...this.#handlers('client'), onAccept: () => this.events.push('accept') },
    });
    this.connector = new TunnelEndpoint({
      ...common,
      role: 'connector',
      grant: grants[kind],
      handlers: {
        ...this.#handlers('connector'),
        onStream: onStream ?? ((stream) => this.served.push(new StreamLog(stream))),
      },
    });
  }

  /** The path is lost with everything that was under way. */
  lose(): void {
    this.client.detach();
    this.connector.detach();
  }

  /** Another path, as the ends see it once both proofs were checked; `between` runs while only the connector has moved. */
  resume(between: () => void = () => undefined): void {
    this.connector.resume(resumedConnector());
    const answer = pullRecord(this.connector, this.nowMs) ?? Buffer.alloc(0);
    between();
    const resumed = readFrames(answer).find((frame) => frame.type === FrameType.Resumed);
    this.client.resume(resumedClient(decodeCount(resumed?.payload ?? Buffer.alloc(0))));
  }

  /** Moves records both ways until both ends are quiet; time stands still. */
  settle(): void {
    while (this.move(this.connector, this.client) || this.move(this.client, this.connector));
  }

  /** Moves what one end has to send; answers whether there was anything. */
  move(from: TunnelEndpoint, to: TunnelEndpoint): boolean {
    let hasMoved = false;
    for (let record = pullRecord(from, this.nowMs); record; record = pullRecord(from, this.nowMs)) {
      to.receive(record, this.nowMs);
      hasMoved = true;
    }
    return hasMoved;
  }

  /** Lets time pass and both ends do what falls due. */
  pass(ms: number): void {
    this.nowMs += ms;
    this.client.tick(this.nowMs);
    this.connector.tick(this.nowMs);
  }

  #handlers(name: string): TunnelHandlers {
    return {
      onOutput: () => undefined,
      onClose: (code, reason) => this.events.push(`${name} heard ${code} ${reason}`),
    };
  }
}

/** The next record as its receiver sees it. */
export function pullRecord(endpoint: TunnelEndpoint, nowMs: number): Buffer | undefined {
  const parts = endpoint.pull(nowMs);
  return parts && Buffer.concat(parts);
}

/** A client's end alone, with what it told. */
export function newClient(): { endpoint: TunnelEndpoint; events: string[] } {
  const events: string[] = [];
  const endpoint = new TunnelEndpoint({
    role: 'client',
    permit: testPermit,
    handlers: {
      onOutput: () => events.push('output'),
      onClose: (code, reason) => events.push(`close ${code} ${reason}`),
      onAccept: () => events.push('accept'),
    },
  });
  return { endpoint, events };
}

/** A connector's end alone, with the streams that it was asked to serve. */
export function newConnector(limits: Partial<TunnelLimits> = {}): {
  endpoint: TunnelEndpoint;
  served: StreamLog[];
} {
  const served: StreamLog[] = [];
  const endpoint = new TunnelEndpoint({
    role: 'connector',
    grant: testGrant,
    limits,
    handlers: {
      onOutput: () => undefined,
      onClose: () => undefined,
      onStream: (stream) => served.push(new StreamLog(stream)),
    },
  });
  return { endpoint, served };
}

/** Bytes that are known by their place, so that a lost, doubled or moved byte shows. */
export function pattern(seed: number, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++)
    bytes[i] = Math.imul(offset + i + 1, 2_654_435_761 + seed) >>> 24;
  return bytes;
}
