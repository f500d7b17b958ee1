import test from 'ava';
import fc from 'fast-check';
import { Fifo } from '../../protocol/fifo.ts';
import { pattern, pullRecord, TunnelPair, type TunnelKind } from '../support/tunnel-pair.ts';
import type { StreamHandlers, TunnelStream } from '../../protocol/stream.ts';
import type { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';

/*
 * Two ends of a tunnel under random orders of everything that may happen, beside a slow and obvious twin: each
 * direction of a stream is a string of bytes that grows, is finished, or is cut off. The pipe between the ends keeps
 * records in order and loses none, but holds each as long as it likes. A tunnel that outlives its paths also loses
 * them, with all that is in the pipe, and moves from one to the next while bytes are under way.
 */

/** One end of a stream, as its twin remembers it. */
class End implements StreamHandlers {
  readonly stream: TunnelStream;
  readonly seed: number;
  writtenBytes = 0;
  hasEnded = false;
  hasReset = false;
  other: End | undefined;

  receivedBytes = 0;
  unconsumedBytes = 0;
  wasEnded = false;
  wasReset: string | undefined;
  readonly mistakes: string[] = [];

  constructor(stream: TunnelStream, seed: number) {
    this.stream = stream;
    this.seed = seed;
  }

  get isFinished(): boolean {
    return this.wasEnded || this.wasReset !== undefined;
  }

  write(bytes: number): void {
    if (this.hasEnded || this.hasReset || this.wasReset !== undefined) return;
    this.stream.write(pattern(this.seed, this.writtenBytes, bytes));
    this.writtenBytes += bytes;
  }

  end(): void {
    if (this.hasReset || this.wasReset !== undefined) return;
    this.hasEnded = true;
    this.stream.end();
  }

  reset(code: 'reset' | 'internal'): void {
    if (!this.stream.isOver) this.hasReset = true;
    this.stream.reset(code);
  }

  consume(bytes: number): void {
    const count = Math.min(bytes, this.unconsumedBytes);
    this.unconsumedBytes -= count;
    this.stream.consumed(count);
  }

  onData(chunk: Buffer): void {
    const seed = this.other?.seed ?? -1;
    if (this.isFinished || this.hasReset) this.mistakes.push('data after the last event');
    if (!chunk.equals(pattern(seed, this.receivedBytes, chunk.length))) {
      this.mistakes.push(`other bytes at ${this.receivedBytes}`);
    }
    this.receivedBytes += chunk.length;
    this.unconsumedBytes += chunk.length;
  }

  onEnd(): void {
    if (this.isFinished || this.hasReset) this.mistakes.push('end after the last event');
    if (this.receivedBytes !== this.other?.writtenBytes) this.mistakes.push('end before all bytes');
    if (this.other?.hasEnded !== true) this.mistakes.push('an end that nobody made');
    this.wasEnded = true;
  }

  onReset(code: string): void {
    if (this.wasReset !== undefined || this.hasReset) this.mistakes.push('reset twice');
    if (this.other?.hasReset !== true) this.mistakes.push('a reset that nobody made');
    this.wasReset = code;
  }

  onWritable(): void {
    if (this.hasReset || this.isOverForWriting) this.mistakes.push('writable after the end');
  }

  get isOverForWriting(): boolean {
    return this.hasEnded || this.wasReset !== undefined;
  }
}

type Act =
  | { readonly do: 'write'; readonly end: number; readonly bytes: number }
  | { readonly do: 'consume'; readonly end: number; readonly bytes: number }
  | { readonly do: 'end'; readonly end: number }
  | { readonly do: 'reset'; readonly end: number; readonly code: 'reset' | 'internal' };
type Step =
  | Act
  | { readonly do: 'open' }
  | { readonly do: 'pull' | 'deliver'; readonly side: number; readonly count: number }
  | { readonly do: 'pass'; readonly ms: number };

type PathStep =
  | { readonly do: 'lose' | 'resume' }
  | { readonly do: 'move'; readonly sent: number; readonly arriving: number };

const end = fc.nat(11);
const bytes = fc.oneof(fc.nat(100), fc.nat(9_000), fc.constantFrom(65_503, 65_536, 200_000));
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant('open' as const) }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('write' as const), end, bytes }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('consume' as const), end, bytes }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('end' as const), end }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('reset' as const),
      end,
      code: fc.constantFrom('reset' as const, 'internal' as const),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constantFrom('pull' as const, 'deliver' as const),
      side: fc.nat(1),
      count: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.nat(40) }) },
);

const few = fc.nat(4);
const pathStep: fc.Arbitrary<Step | PathStep> = fc.oneof(
  { weight: 20, arbitrary: step },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose' as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('resume' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('move' as const), sent: few, arriving: few }),
  },
);

class World {
  readonly ends: End[] = [];
  readonly #waiting: End[] = []; // the client's ends, until the connector sees theirs
  readonly #pair: TunnelPair;
  readonly #sides: readonly [TunnelEndpoint, TunnelEndpoint];
  readonly #pipes = [new Fifo<Buffer>(), new Fifo<Buffer>()] as const;
  paths = 1;

  constructor(kind: TunnelKind) {
    this.#pair = new TunnelPair({
      kind,
      onStream: (stream) => {
        const other = this.#waiting.find((client) => client.stream.id === stream.id);
        this.#add(stream, other);
      },
    });
    this.#sides = [this.#pair.client, this.#pair.connector];
  }

  run(step: Step | PathStep): void {
    switch (step.do) {
      case 'lose':
        this.#pair.lose();
        for (const pipe of this.#pipes) pipe.clear();
        return;
      case 'resume':
        if (this.#pair.client.isDetached) this.#move(0, 0);
        return;
      case 'move':
        this.#move(step.sent, step.arriving);
        return;
      case 'open':
        this.#waiting.push(this.#add(this.#pair.client.open()));
        return;
      case 'pull':
        for (let i = 0; i < step.count; i++) this.#pull(step.side);
        return;
      case 'deliver':
        for (let i = 0; i < step.count; i++) this.#deliver(step.side);
        return;
      case 'pass':
        this.#pair.pass(step.ms);
        return;
      case 'write':
      case 'consume':
      case 'end':
      case 'reset':
        this.#act(step, this.ends[step.end % Math.max(1, this.ends.length)]);
    }
  }

  /** Everything that is under way arrives, everything that arrived is read. */
  settle(): void {
    if (this.#pair.client.isDetached) this.#move(0, 0);
    for (let quietRounds = 0; quietRounds < 2; quietRounds++) {
      let isQuiet = true;
      for (const side of [0, 1]) {
        while (this.#pull(side)) isQuiet = false;
        while (this.#deliver(side)) isQuiet = false;
      }
      for (const end of this.ends) {
        if (end.unconsumedBytes > 0) isQuiet = false;
        end.consume(Infinity);
      }
      if (!isQuiet) quietRounds = -1;
      this.#pair.pass(25); // what was heard is told by then
    }
  }

  get liveCount(): number {
    return Math.max(...this.#sides.map((side) => side.streamCount));
  }

  /** After the last ACKs. */
  get keptCount(): number {
    this.settle();
    return this.#sides.reduce((sum, side) => sum + side.streamCount + side.lingeringStreamCount, 0);
  }

  /** The client still sends `sent` records into the old path, and `arriving` of it still reach the client. */
  #move(sent: number, arriving: number): void {
    this.paths++;
    this.#pair.resume(() => {
      for (let i = 0; i < sent; i++) this.#pull(0);
      if (!this.#pair.client.isDetached) for (let i = 0; i < arriving; i++) this.#deliver(1);
      for (const pipe of this.#pipes) pipe.clear();
    });
  }

  #act(step: Act, end: End | undefined): void {
    if (step.do === 'write') end?.write(step.bytes);
    else if (step.do === 'consume') end?.consume(step.bytes);
    else if (step.do === 'end') end?.end();
    else end?.reset(step.code);
  }

  #add(stream: TunnelStream, other?: End): End {
    const end = new End(stream, this.ends.length);
    end.other = other;
    if (other) other.other = end;
    this.ends.push(end);
    stream.attach(end);
    return end;
  }

  #pull(side: number): boolean {
    const record = pullRecord(this.#sides[side === 0 ? 0 : 1], this.#pair.nowMs);
    if (record) this.#pipes[side === 0 ? 0 : 1].push(record);
    return record !== undefined;
  }

  #deliver(from: number): boolean {
    const record = this.#pipes[from === 0 ? 0 : 1].shift();
    if (record) this.#sides[from === 0 ? 1 : 0].receive(record, this.#pair.nowMs);
    return record !== undefined;
  }
}

const promises: Readonly<Record<TunnelKind, string>> = {
  brief: 'in any order of events',
  lasting: 'over any number of lost and changed paths',
  paced: 'over paths that are told from either end what was heard',
};

for (const [kind, what] of Object.entries(promises) as [TunnelKind, string][]) {
  const isLasting = kind !== 'brief';
  test(`TunnelEndpoint - ${what} every byte, end and reset arrives as its twin says`, (t) => {
    const seen = { bytes: 0, ends: 0, resets: 0, paths: 0 };
    const steps = fc.array(isLasting ? pathStep : step, { minLength: 60, maxLength: 200 });
    fc.assert(
      fc.property(steps, (taken) => {
        const world = new World(kind);
        for (const each of taken) world.run(each);
        world.settle();
        seen.paths += world.paths;
        for (const end of world.ends) {
          t.deepEqual(end.mistakes, []);
          const { other } = end;
          if (other === undefined) {
            t.true(end.hasReset, 'only one that was reset before it left is unknown to the peer');
            continue;
          }
          seen.bytes += end.receivedBytes;
          if (other.hasReset && !end.hasReset) {
            t.true(end.wasReset !== undefined || (end.wasEnded && end.hasEnded));
            t.true(end.receivedBytes <= other.writtenBytes);
            seen.resets++;
          } else if (!other.hasReset && !end.hasReset) {
            t.is(end.receivedBytes, other.writtenBytes);
            t.is(end.wasEnded, other.hasEnded);
            if (end.wasEnded) seen.ends++;
          }
        }
        const openCount = world.ends.filter((end) => !end.stream.isOver).length;
        t.is(world.liveCount * 2, openCount);
        t.is(world.keptCount, openCount);
      }),
      { numRuns: 400, includeErrorInReport: true },
    );
    t.true(seen.bytes > 1_000_000 && seen.ends > 100 && seen.resets > 100, JSON.stringify(seen));
    if (isLasting) t.true(seen.paths > 1_000, JSON.stringify(seen));
  });
}
