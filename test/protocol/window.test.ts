import test from 'ava';
import fc from 'fast-check';
import { Fifo } from '../../protocol/fifo.ts';
import {
  ByteBudget,
  ReceiveWindow,
  reservedWindowBytes,
  WindowGrowth,
} from '../../protocol/window.ts';
import { pullRecord, StreamLog, TunnelPair } from '../support/tunnel-pair.ts';
import type { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';

const mebibyte = 1_048_576;
const cap = 16 * mebibyte;

/** Moves bytes through the window as fast as the limit allows, at one full window per round trip. */
function stream(window: ReceiveWindow, { delayMs = 80, roundTrips = 1, nowMs = 0 } = {}): number {
  let at = nowMs;
  let sent = window.consumedBytes;
  let limit = window.limitBytes;
  for (let i = 0; i < roundTrips; i++) {
    const bytes = limit - sent;
    for (let part = 0; part < 16; part++) {
      const count = Math.floor((bytes * (part + 1)) / 16) - Math.floor((bytes * part) / 16);
      window.receive(count, at);
      window.consume(count);
      at += delayMs / 16;
      if (window.isCreditDue) limit = window.nextLimit(at, delayMs);
    }
    sent += bytes;
  }
  return at;
}

test('ReceiveWindow - starts with 64 KiB and refuses the byte above', (t) => {
  const window = new ReceiveWindow(new WindowGrowth(cap, undefined));
  t.is(window.limitBytes, 65_536);
  t.true(window.receive(65_536, 0));
  t.false(window.receive(1, 0));
});

test('ReceiveWindow - credit is due when a quarter of the window was consumed, and not before', (t) => {
  const window = new ReceiveWindow(new WindowGrowth(cap, undefined));
  window.receive(20_000, 0);
  window.consume(16_383);
  t.false(window.isCreditDue);
  window.consume(1);
  t.true(window.isCreditDue);
  t.is(window.nextLimit(0, undefined), 65_536 + 16_384);
  t.false(window.isCreditDue);
});

test('ReceiveWindow - doubles while half of it is consumed within two round trips', (t) => {
  const window = new ReceiveWindow(new WindowGrowth(cap, undefined));
  window.receive(40_000, 0);
  window.consume(40_000);
  t.is(window.nextLimit(159, 80), 40_000 + 131_072);
  window.receive(70_000, 160);
  window.consume(70_000);
  t.is(window.nextLimit(318, 80), 110_000 + 262_144);
});

test('ReceiveWindow - does not grow when consumed more slowly, or before the delay is known', (t) => {
  for (const [elapsedMs, delayMs] of [
    [160, 80],
    [10, undefined],
    [11, 1],
  ] as const) {
    const window = new ReceiveWindow(new WindowGrowth(cap, undefined));
    window.receive(40_000, 0);
    window.consume(40_000);
    window.nextLimit(elapsedMs, delayMs);
    t.is(window.windowBytes, reservedWindowBytes);
  }
});

test('ReceiveWindow - does not grow for half of itself consumed, but for one byte more', (t) => {
  for (const [bytes, windowBytes] of [
    [32_768, 65_536],
    [32_769, 131_072],
  ] as const) {
    const window = new ReceiveWindow(new WindowGrowth(cap, undefined));
    window.receive(bytes, 0);
    window.consume(bytes);
    window.nextLimit(1, 80);
    t.is(window.windowBytes, windowBytes);
  }
});

test('ReceiveWindow - reaches 16 MiB within a dozen round trips and stays there', (t) => {
  const growth = new WindowGrowth(cap, undefined);
  const window = new ReceiveWindow(growth);
  const nowMs = stream(window, { roundTrips: 12 });
  t.is(window.windowBytes, cap + reservedWindowBytes);
  stream(window, { roundTrips: 3, nowMs });
  t.is(growth.usedBytes, cap);
});

test('ReceiveWindow - settles between four and eight times bandwidth times delay', (t) => {
  // 10 MB/s at 80 ms: 800,000 bytes are under way.
  const window = new ReceiveWindow(new WindowGrowth(cap, undefined));
  let nowMs = 0;
  for (let i = 0; i < 5_000; i++) {
    const bytes = Math.min(10_000, window.limitBytes - i * 10_000);
    if (bytes < 10_000) t.fail('the limit held the stream back');
    window.receive(bytes, nowMs);
    window.consume(bytes);
    nowMs += i < 100 ? 5 : 1; // slow at first, so that the limit need not hold it back
    if (window.isCreditDue) window.nextLimit(nowMs, 80);
  }
  t.true(window.windowBytes >= 4 * 800_000, String(window.windowBytes));
  t.true(window.windowBytes < 8 * 800_000, String(window.windowBytes));
});

test('WindowGrowth - is bounded by the tunnel and by the process', (t) => {
  const budget = new ByteBudget(3 * mebibyte);
  const first = new WindowGrowth(2 * mebibyte, budget);
  const second = new WindowGrowth(2 * mebibyte, budget);
  t.is(first.take(5 * mebibyte, 0), 2 * mebibyte);
  t.is(second.take(2 * mebibyte, 0), mebibyte);
  t.is(budget.freeBytes, 0);
  first.give(2 * mebibyte, 2 * mebibyte);
  t.is(budget.freeBytes, 2 * mebibyte);
});

test('ReceiveWindow - gives its growth back when released', (t) => {
  const budget = new ByteBudget(cap);
  const growth = new WindowGrowth(cap, budget);
  const window = new ReceiveWindow(growth);
  stream(window, { roundTrips: 6 });
  t.true(growth.usedBytes > 0);
  window.release();
  window.release();
  t.is(growth.usedBytes, 0);
  t.is(budget.freeBytes, cap);
});

test('ReceiveWindow - one that took all shares with one that comes later, and no limit ever falls', (t) => {
  const growth = new WindowGrowth(cap, undefined);
  const first = new ReceiveWindow(growth);
  let nowMs = stream(first, { roundTrips: 12 });
  t.is(growth.usedBytes, cap);
  const second = new ReceiveWindow(growth);
  let limit = first.limitBytes;
  for (let i = 0; i < 60; i++) {
    stream(second, { nowMs });
    nowMs = stream(first, { nowMs });
    t.true(first.limitBytes >= limit);
    limit = first.limitBytes;
    t.true(growth.usedBytes <= cap);
  }
  t.true(second.windowBytes > 4 * mebibyte, String(second.windowBytes));
  t.true(first.windowBytes > 4 * mebibyte, String(first.windowBytes));
});

test('ReceiveWindow - whatever happens, growth adds up and limits never fall or exceed their window', (t) => {
  const event = fc.tuple(fc.nat(3), fc.nat(400_000), fc.nat(200), fc.boolean());
  fc.assert(
    fc.property(fc.array(event, { maxLength: 200 }), (events) => {
      const budget = new ByteBudget(2 * mebibyte);
      const growth = new WindowGrowth(mebibyte, budget);
      const windows = Array.from({ length: 4 }, () => new ReceiveWindow(growth));
      let nowMs = 0;
      for (const [index, bytes, ms, isRead] of events) {
        const window = windows[index] as ReceiveWindow;
        nowMs += ms;
        const limit = window.limitBytes;
        const room = limit - window.consumedBytes - window.unconsumedBytes;
        window.receive(Math.min(bytes, room), nowMs);
        if (isRead) window.consume(window.unconsumedBytes);
        if (window.isCreditDue) window.nextLimit(nowMs, 80);
        t.true(window.limitBytes >= limit);
        const grown = windows.reduce((sum, w) => sum + w.windowBytes - reservedWindowBytes, 0);
        t.is(grown, growth.usedBytes);
        t.true(grown <= mebibyte);
        const promised = windows.reduce((sum, w) => sum + w.limitBytes - w.consumedBytes, 0);
        t.true(promised <= 4 * reservedWindowBytes + mebibyte);
      }
      for (const window of windows) window.release();
      t.is(growth.usedBytes, 0);
      t.is(budget.freeBytes, 2 * mebibyte);
    }),
    { numRuns: 300 },
  );
});

test('TunnelEndpoint - over 80 ms a stream reaches 90 % of 50 MB/s within two seconds', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  const up = new DelayLine(pair.client, pair.connector, { delayMs: 40, bytesPerMs: 50_000 });
  const down = new DelayLine(pair.connector, pair.client, { delayMs: 40, bytesPerMs: 50_000 });
  let atTwoSeconds = 0;
  for (let ms = 0; ms < 3_000; ms++) {
    pair.nowMs++;
    up.step(pair.nowMs, () => {
      while (log.stream.write(Buffer.alloc(65_536)));
    });
    down.step(pair.nowMs);
    if (ms === 1_999) atTwoSeconds = pair.served[0]?.receivedBytes ?? 0;
  }
  const perSecond = (pair.served[0]?.receivedBytes ?? 0) - atTwoSeconds;
  t.true([80, 81, 82].includes(pair.connector.roundTripMs ?? 0));
  t.true(perSecond > 0.9 * 50_000_000, String(perSecond));
});

/** One direction of a path with delay and a bandwidth, stepped once a millisecond. */
class DelayLine {
  readonly #from: TunnelEndpoint;
  readonly #to: TunnelEndpoint;
  readonly #delayMs: number;
  readonly #bytesPerMs: number;
  readonly #underWay = new Fifo<{ readonly atMs: number; readonly record: Buffer }>();
  #allowedBytes = 0;

  constructor(
    from: TunnelEndpoint,
    to: TunnelEndpoint,
    path: { readonly delayMs: number; readonly bytesPerMs: number },
  ) {
    this.#from = from;
    this.#to = to;
    this.#delayMs = path.delayMs;
    this.#bytesPerMs = path.bytesPerMs;
  }

  step(nowMs: number, refill?: () => void): void {
    this.#allowedBytes = Math.min(0, this.#allowedBytes) + this.#bytesPerMs;
    while (this.#allowedBytes > 0) {
      refill?.();
      const record = pullRecord(this.#from, nowMs);
      if (record === undefined) break;
      this.#allowedBytes -= record.length;
      this.#underWay.push({ atMs: nowMs + this.#delayMs, record });
    }
    for (
      let next = this.#underWay.peek();
      next && next.atMs <= nowMs;
      next = this.#underWay.peek()
    ) {
      this.#underWay.shift();
      this.#to.receive(next.record, nowMs);
    }
  }
}
