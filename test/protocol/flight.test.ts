import test from 'ava';
import { Flight } from '../../protocol/flight.ts';

/** A path as its sender sees it: a rate, a delay each way, a queue without an end, and a peer that tells what it hears. */
class Link {
  readonly flight = new Flight();
  /** Bytes per millisecond. */
  rate: number;
  delayMs: number;
  nowMs = 0;
  deliveredBytes = 0;
  mostQueueMs = 0;
  #freeAtMs = 0;
  #sentBytes = 0;
  readonly #arriving: { atMs: number; bytes: number }[] = [];

  constructor(rate: number, delayMs: number) {
    this.rate = rate;
    this.delayMs = delayMs;
    this.flight.learnRoundTrip(2 * delayMs, 0);
  }

  /** Sends all that it may, `mostBytes` a millisecond at most. */
  run(ms: number, mostBytes = Infinity): void {
    const endMs = this.nowMs + ms;
    for (; this.nowMs < endMs; this.nowMs++) {
      this.#hear();
      for (let left = mostBytes; left > 0 && this.flight.roomBytes > 0;) {
        const bytes = Math.min(65_000, this.flight.roomBytes, left);
        this.#send(bytes);
        left -= bytes;
      }
    }
  }

  #send(bytes: number): void {
    this.flight.add(bytes, this.nowMs);
    this.#sentBytes += bytes;
    this.#freeAtMs = Math.max(this.#freeAtMs, this.nowMs) + bytes / this.rate;
    this.mostQueueMs = Math.max(this.mostQueueMs, this.#freeAtMs - this.nowMs);
    this.#arriving.push({ atMs: this.#freeAtMs + 2 * this.delayMs, bytes: this.#sentBytes });
  }

  #hear(): void {
    for (let next = this.#arriving[0]; next && next.atMs <= this.nowMs; next = this.#arriving[0]) {
      this.#arriving.shift();
      this.deliveredBytes = next.bytes;
      this.flight.heard(next.bytes, this.nowMs);
    }
  }
}

const kilobitsPerSecond = (rate: number): number => rate / 8;

for (const [rate, delayMs] of [
  [64, 20],
  [1_000, 5],
  [10_000, 40],
  [100_000, 100],
  [1_000_000, 1],
  [20_000, 300],
] as const) {
  test(`Flight - ${rate} kbit/s and ${delayMs} ms: uses the path and queues no longer than a round trip or 0.6 s`, (t) => {
    const link = new Link(kilobitsPerSecond(rate), delayMs);
    link.run(10_000);
    link.mostQueueMs = 0;
    const before = link.deliveredBytes;
    link.run(60_000);
    const used = (link.deliveredBytes - before) / (60_000 * link.rate);
    t.true(used > 0.9, `${used}`);
    t.true(link.mostQueueMs <= Math.max(600, 2.2 * delayMs), `${link.mostQueueMs} ms`);
  });
}

test('Flight - a path that becomes slow is held to its new rate within seconds', (t) => {
  const link = new Link(kilobitsPerSecond(10_000), 10);
  link.run(5_000);
  link.rate = kilobitsPerSecond(500);
  link.run(8_000);
  link.mostQueueMs = 0;
  link.run(10_000);
  t.true(link.mostQueueMs < 600, `${link.mostQueueMs} ms`);
});

test('Flight - a path that becomes fast is used within seconds', (t) => {
  const link = new Link(kilobitsPerSecond(100), 20);
  link.run(10_000);
  link.rate = kilobitsPerSecond(50_000);
  link.run(2_000);
  const before = link.deliveredBytes;
  link.run(2_000);
  t.true(link.deliveredBytes - before > 0.9 * 2_000 * link.rate);
});

test('Flight - a path whose delay grows is used again', (t) => {
  const link = new Link(kilobitsPerSecond(10_000), 10);
  link.run(5_000);
  link.delayMs = 400;
  link.run(60_000);
  const before = link.deliveredBytes;
  link.run(10_000);
  t.true(link.deliveredBytes - before > 0.8 * 10_000 * link.rate);
});

test('Flight - a sender that has little to send is not held back when it has more', (t) => {
  const link = new Link(kilobitsPerSecond(50_000), 20);
  link.run(2_000);
  link.run(60_000, 1);
  const before = link.deliveredBytes;
  link.run(500);
  t.true(link.deliveredBytes - before > 0.8 * 500 * link.rate);
});

test('Flight - little that was sent at first takes nothing from what may be sent next', (t) => {
  const flight = new Flight();
  flight.learnRoundTrip(1, 0);
  flight.add(20, 0);
  flight.heard(20, 26);
  let bytes = 0;
  for (let room = flight.roomBytes; room > 0; room = flight.roomBytes) {
    flight.add(room, 30);
    bytes += room;
  }
  t.true(bytes > 15_000 && bytes <= 16_384, `${bytes}`);
});

test('Flight - a pause of the peer does not make the path slow', (t) => {
  const link = new Link(kilobitsPerSecond(50_000), 5);
  link.run(2_000);
  const { rate } = link;
  link.rate = 0.000_1;
  link.run(1);
  link.rate = rate;
  link.nowMs += 3_000;
  link.run(1_000);
  const before = link.deliveredBytes;
  link.run(1_000);
  t.true(link.deliveredBytes - before > 0.9 * 1_000 * rate);
});

test('Flight - refuses word of bytes that were never sent, and of fewer than before', (t) => {
  const flight = new Flight();
  flight.add(5_000, 0);
  t.false(flight.heard(5_001, 1));
  t.true(flight.heard(4_000, 1));
  t.true(flight.heard(4_000, 1));
  t.false(flight.heard(3_999, 1));
  t.is(flight.bytes, 1_000);
  t.is(flight.oldestAtMs, 0);
  flight.reset();
  t.is(flight.bytes, 0);
  t.is(flight.oldestAtMs, undefined);
  t.false(flight.heard(1, 1));
});
