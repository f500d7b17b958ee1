import test from 'ava';
import { encodeFrame, FrameType, maxPayloadBytes, readFrames } from '../../protocol/frame.ts';
import { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';
import { reservedWindowBytes } from '../../protocol/window.ts';
import {
  newClient,
  newConnector,
  pattern,
  pullRecord,
  StreamLog,
  testGrant,
  testPermit,
  TunnelPair,
} from '../support/tunnel-pair.ts';
import type { TunnelStream } from '../../protocol/stream.ts';

const typesOf = (record: Buffer | undefined) =>
  record === undefined ? [] : readFrames(record).map(({ type }) => type);

test('TunnelEndpoint - the connector says ACCEPT first, and the client hears it once', (t) => {
  const pair = new TunnelPair();
  const first = pullRecord(pair.connector, 0);
  t.is(typesOf(first)[0], FrameType.Accept);
  if (first) pair.client.receive(first, 0);
  pair.settle();
  t.deepEqual(pair.events, ['accept']);
});

test('TunnelEndpoint - carries bytes and both ends exactly', (t) => {
  const pair = new TunnelPair();
  const up = pattern(1, 0, 300_000);
  const down = pattern(2, 0, 200_001);
  const log = new StreamLog(pair.client.open(up.subarray(0, 10)));
  log.stream.write(up.subarray(10));
  log.stream.end();
  pair.settle();
  const [served] = pair.served;
  t.true(served?.bytes.equals(up));
  t.deepEqual(served?.events, ['end']);
  t.false(log.stream.isOver);
  served?.stream.write(down);
  served?.stream.end();
  pair.settle();
  t.true(log.bytes.equals(down));
  t.is(log.events.at(-1), 'end');
  t.true(log.stream.isOver && served?.stream.isOver);
});

test('TunnelEndpoint - one end finished leaves the other direction open', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  log.stream.end();
  pair.settle();
  const [served] = pair.served;
  t.deepEqual(served?.events, ['end']);
  t.false(log.stream.isOver);
  for (let i = 0; i < 5; i++) {
    served?.stream.write(pattern(1, i * 1_000, 1_000));
    pair.settle();
  }
  t.deepEqual(log.bytes, pattern(1, 0, 5_000));
  t.deepEqual(log.events, []);
});

test('TunnelEndpoint - OPEN carries the bytes that were there, in the same record', (t) => {
  const pair = new TunnelPair();
  pair.settle();
  pair.client.open(Buffer.from('GET / HTTP/1.1\r\n')).end();
  const record = pullRecord(pair.client, pair.nowMs) ?? Buffer.alloc(0);
  const [open, fin] = readFrames(record);
  t.is(open?.type, FrameType.Open);
  t.is(open?.payload.toString(), 'GET / HTTP/1.1\r\n');
  t.is(fin?.type, FrameType.Fin);
});

test('TunnelEndpoint - a client may send before the connector accepts', (t) => {
  const { endpoint } = newClient();
  endpoint.open(Buffer.from('early'));
  t.deepEqual(typesOf(pullRecord(endpoint, 0)), [FrameType.Open]);
});

test('TunnelEndpoint - a lone byte leaves at once and in a record of its own', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  pair.pass(100);
  pair.settle();
  log.stream.write(Buffer.from('x'));
  t.is(pullRecord(pair.client, pair.nowMs)?.length, 17);
});

test('TunnelEndpoint - what many streams wrote shares records', (t) => {
  const pair = new TunnelPair();
  const logs = Array.from({ length: 100 }, () => new StreamLog(pair.client.open()));
  pair.settle();
  for (const log of logs) log.stream.write(Buffer.from('hello'));
  const record = pullRecord(pair.client, pair.nowMs);
  t.is(typesOf(record).filter((type) => type === FrameType.Data).length, 100);
});

test('TunnelEndpoint - bulk fills its records with one frame and does not copy it', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  const chunk = Buffer.allocUnsafeSlow(65_536);
  log.stream.write(chunk);
  const parts = pair.client.pull(pair.nowMs) ?? [];
  t.is(
    parts.reduce((sum, part) => sum + part.length, 0),
    16 + maxPayloadBytes,
  );
  t.is(parts.at(-1)?.buffer, chunk.buffer);
});

test('TunnelEndpoint - streams take turns: a bulk transfer does not hold back a byte', (t) => {
  const pair = new TunnelPair();
  const bulk = new StreamLog(pair.client.open());
  const other = new StreamLog(pair.client.open());
  pair.settle();
  bulk.stream.write(Buffer.alloc(200_000));
  other.stream.write(Buffer.from('me too'));
  pair.move(pair.client, pair.connector);
  t.is(pair.served[1]?.bytes.toString(), 'me too');
  const third = new StreamLog(pair.client.open(Buffer.from('and me')));
  bulk.stream.write(Buffer.alloc(65_536));
  third.stream.write(Buffer.from('!'));
  pair.settle();
  t.is(pair.served[2]?.bytes.toString(), 'and me!');
});

test('TunnelEndpoint - two bulk streams get the same share', (t) => {
  const pair = new TunnelPair();
  const logs = [new StreamLog(pair.client.open()), new StreamLog(pair.client.open())];
  pair.settle();
  for (let round = 0; round < 50; round++) {
    for (const log of logs) log.stream.write(Buffer.alloc(65_536));
    for (let records = 0; records < 2; records++) {
      const record = pullRecord(pair.client, pair.nowMs);
      if (record) pair.connector.receive(record, pair.nowMs);
    }
    pair.move(pair.connector, pair.client);
  }
  const [a = 0, b = 0] = pair.served.map((log) => log.receivedBytes);
  t.true(a > 1_000_000);
  t.true(Math.abs(a - b) <= 2 * maxPayloadBytes, `${a} and ${b}`);
});

test('TunnelEndpoint - reset with `reset` lets what the credit allows go ahead, then resets', (t) => {
  for (const bytes of [0, 1, 4_095, 4_096, 65_535, 65_536, 200_000]) {
    const pair = new TunnelPair();
    const sent = pattern(3, 0, bytes);
    const log = new StreamLog(pair.client.open());
    pair.settle();
    log.stream.write(sent);
    log.stream.reset('reset');
    t.true(log.stream.isOver);
    pair.settle();
    const [served] = pair.served;
    t.true(served?.bytes.equals(sent.subarray(0, reservedWindowBytes)));
    t.deepEqual(served?.events, ['reset reset']);
    t.deepEqual(
      log.events.filter((event) => event !== 'writable'),
      [],
    );
  }
});

test('TunnelEndpoint - reset with another code drops what was not sent', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  log.stream.write(Buffer.alloc(10));
  log.stream.reset('internal');
  pair.settle();
  t.is(pair.served[0]?.receivedBytes, 0);
  t.deepEqual(pair.served[0]?.events, ['reset internal']);
});

test('TunnelEndpoint - a stream that is reset before its OPEN left was never there', (t) => {
  const pair = new TunnelPair();
  pair.settle();
  const stream = pair.client.open(Buffer.from('x'));
  stream.reset('reset');
  pair.settle();
  t.is(pair.served.length, 0);
  t.is(pair.client.streamCount + pair.client.lingeringStreamCount, 0);
  const next = new StreamLog(pair.client.open(Buffer.from('y')));
  pair.settle();
  t.is(pair.served[0]?.bytes.toString(), 'y');
  t.true(next.stream.id > stream.id);
});

test('TunnelEndpoint - resets that cross, and data that crosses a reset, harm nobody', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  const [served] = pair.served;
  log.stream.write(Buffer.alloc(1_000));
  served?.stream.write(Buffer.alloc(1_000));
  const up = pullRecord(pair.client, pair.nowMs);
  const down = pullRecord(pair.connector, pair.nowMs);
  log.stream.reset('closed');
  served?.stream.reset('internal');
  if (up) pair.connector.receive(up, pair.nowMs);
  if (down) pair.client.receive(down, pair.nowMs);
  pair.settle();
  pair.pass(25);
  pair.settle();
  t.is(log.receivedBytes, 0);
  for (const endpoint of [pair.client, pair.connector]) {
    t.is(endpoint.streamCount + endpoint.lingeringStreamCount, 0);
  }
});

test('TunnelEndpoint - an app that never reads stops its own stream alone, at its window', (t) => {
  const served: StreamLog[] = [];
  const pair = new TunnelPair({
    onStream: (stream) => served.push(new StreamLog(stream, { isReading: served.length > 0 })),
  });
  const stuck = new StreamLog(pair.client.open());
  const other = new StreamLog(pair.client.open());
  let accepted = 0;
  while (stuck.stream.write(Buffer.alloc(10_000))) accepted += 10_000;
  for (let round = 0; round < 100; round++) {
    other.stream.write(Buffer.alloc(100_000));
    pair.settle();
    pair.pass(10);
  }
  t.is(served[0]?.receivedBytes, reservedWindowBytes);
  t.is(served[1]?.receivedBytes, 10_000_000);
  t.true(accepted <= 2 * reservedWindowBytes + 10_000);
});

test('TunnelEndpoint - one byte above the credit ends the tunnel', (t) => {
  for (const isUnread of [true, false]) {
    const served: StreamLog[] = [];
    const pair = new TunnelPair({
      onStream: (stream) => served.push(new StreamLog(stream, { isReading: !isUnread })),
    });
    pair.settle();
    const raw = (number: number, bytes: number, type: FrameType = FrameType.Data) =>
      encodeFrame(type, 1, number, Buffer.alloc(bytes));
    pair.connector.receive(raw(1, 30_000, FrameType.Open), 0);
    pair.connector.receive(raw(2, 35_536), 0);
    if (isUnread) {
      t.throws(
        () => {
          pair.connector.receive(raw(3, 1), 0);
        },
        { code: 'ERR_FRAME_CREDIT_OVERRUN' },
      );
      continue;
    }
    // Read, but not told to the peer before the record is pulled: the limit is what counts.
    t.throws(
      () => {
        pair.connector.receive(raw(3, 1), 0);
      },
      { code: 'ERR_FRAME_CREDIT_OVERRUN' },
    );
    t.is(served[0]?.receivedBytes, reservedWindowBytes);
  }
});

test('TunnelEndpoint - data for a stream that we reset still counts against its credit', (t) => {
  const { endpoint, served } = newConnector();
  endpoint.receive(encodeFrame(FrameType.Open, 1, 1, Buffer.alloc(60_000)), 0);
  served[0]?.stream.reset('closed');
  endpoint.receive(encodeFrame(FrameType.Data, 1, 2, Buffer.alloc(5_536)), 0);
  const above = encodeFrame(FrameType.Data, 1, 3, Buffer.alloc(1));
  t.throws(
    () => {
      endpoint.receive(above, 0);
    },
    { code: 'ERR_FRAME_CREDIT_OVERRUN' },
  );
});

test('TunnelEndpoint - what arrives before a stream is attached is kept, small chunks together', (t) => {
  const streams: TunnelStream[] = [];
  const pair = new TunnelPair({ onStream: (stream) => streams.push(stream) });
  pair.settle();
  const sent = pattern(5, 0, 60_000);
  const chunks: Buffer[] = [];
  for (let at = 0; at < sent.length;) {
    const length = at < 10_000 ? 1 : 25_000;
    chunks.push(sent.subarray(at, at + length));
    at += length;
  }
  const client = pair.client.open();
  for (const chunk of chunks) {
    client.write(chunk);
    pair.move(pair.client, pair.connector);
  }
  client.end();
  pair.settle();
  const [stream] = streams;
  if (stream === undefined) return void t.fail();
  let deliveries = 0;
  const log = new (class extends StreamLog {
    override onData(chunk: Buffer): void {
      deliveries++;
      super.onData(chunk);
    }
  })(stream);
  t.true(log.bytes.equals(sent));
  t.deepEqual(log.events, ['end']);
  t.true(deliveries < 6, String(deliveries));
});

test('TunnelEndpoint - a reset before a stream is attached comes behind what arrived', (t) => {
  const streams: TunnelStream[] = [];
  const pair = new TunnelPair({ onStream: (stream) => streams.push(stream) });
  const client = pair.client.open(Buffer.from('abc'));
  pair.settle();
  client.reset('reset');
  pair.settle();
  const [stream] = streams;
  if (stream === undefined) return void t.fail();
  const log = new StreamLog(stream);
  t.is(log.bytes.toString(), 'abc');
  t.deepEqual(log.events, ['reset reset']);
});

test('write - asks to wait at its mark and says when there is room again', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  let chunks = 0;
  while (log.stream.write(Buffer.alloc(1_000))) chunks++;
  t.true(chunks < 300);
  t.deepEqual(log.events, []);
  pair.settle();
  t.deepEqual(log.events, ['writable']);
});

test('write - asks to wait when very many small chunks wait', (t) => {
  const served: StreamLog[] = [];
  const pair = new TunnelPair({
    onStream: (stream) => served.push(new StreamLog(stream, { isReading: false })),
  });
  const log = new StreamLog(pair.client.open());
  log.stream.write(Buffer.alloc(reservedWindowBytes));
  pair.settle();
  let chunks = 0;
  while (log.stream.write(Buffer.from('x'))) chunks++;
  t.true(chunks < 2_000);
});

test('write - after end throws, after a reset goes nowhere', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  log.stream.end();
  t.throws(() => log.stream.write(Buffer.from('x')), { code: 'ERR_TUNNEL_CLOSED' });
  log.stream.end();
  log.stream.reset('reset');
  t.true(log.stream.write(Buffer.from('x')));
});

test('consumed - refuses more than was delivered', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  t.throws(
    () => {
      log.stream.consumed(1);
    },
    { code: 'ERR_INTERNAL' },
  );
  const second = new StreamLog(pair.client.open());
  t.throws(
    () => {
      second.stream.consumed(-1);
    },
    { code: 'ERR_INTERNAL' },
  );
});

test('close - is the last record, resets every stream at both ends, and reaches the peer', (t) => {
  const pair = new TunnelPair();
  const logs = [new StreamLog(pair.client.open()), new StreamLog(pair.client.open())];
  pair.settle();
  logs[0]?.stream.write(Buffer.alloc(10));
  pair.connector.close('ERR_TUNNEL_REVOKED', 'device_revoked');
  pair.connector.close('ERR_INTERNAL', 'too_late');
  t.true(pair.connector.isClosed);
  t.deepEqual(typesOf(pullRecord(pair.connector, 0)), [FrameType.Close]);
  t.is(pair.connector.pull(0), undefined);
  t.deepEqual(
    pair.served.map(({ events }) => events),
    [['reset closed'], ['reset closed']],
  );

  const other = new TunnelPair();
  const log = new StreamLog(other.client.open());
  other.settle();
  other.connector.close('ERR_TUNNEL_REVOKED', 'device_revoked');
  other.settle();
  t.deepEqual(other.events, ['accept', 'client heard ERR_TUNNEL_REVOKED device_revoked']);
  t.deepEqual(log.events, ['reset closed']);
  t.throws(() => other.client.open(), { code: 'ERR_TUNNEL_CLOSED' });
});

test('abort - resets every stream and says nothing', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  log.stream.write(Buffer.from('x'));
  pair.client.abort();
  pair.client.abort();
  t.deepEqual(log.events, ['reset closed']);
  t.is(pair.client.pull(0), undefined);
  t.is(pair.client.nextDeadlineMs, undefined);
});

test('onOutput - is told once until pull has answered undefined', (t) => {
  const { endpoint, events } = newClient();
  const stream = endpoint.open();
  stream.write(Buffer.from('x'));
  t.deepEqual(events, ['output']);
  endpoint.pull(0);
  stream.write(Buffer.from('x'));
  endpoint.pull(0);
  t.deepEqual(events, ['output']);
  t.is(endpoint.pull(0), undefined);
  stream.write(Buffer.from('x'));
  t.deepEqual(events, ['output', 'output']);
});

test('TunnelEndpoint - without the proof of its role it neither compiles nor starts', (t) => {
  const handlers = { onOutput: () => undefined, onClose: () => undefined };
  const client = { ...handlers, onAccept: () => undefined };
  // @ts-expect-error -- no permit
  t.throws(() => new TunnelEndpoint({ role: 'client', handlers: client }));
  const unverified = { tunnel: testGrant.tunnel, decision: testGrant.decision };
  const serve = { ...handlers, onStream: () => undefined };
  // @ts-expect-error -- a grant that nobody verified
  const first = new TunnelEndpoint({ role: 'connector', grant: unverified, handlers: serve });
  // @ts-expect-error -- a grant that the client verified
  const other = new TunnelEndpoint({ role: 'connector', grant: testPermit.grant, handlers: serve });
  t.is(first.grant.tunnel, other.grant.tunnel);
});

test('open - is not for connectors', (t) => {
  t.throws(() => newConnector().endpoint.open(), { code: 'ERR_INTERNAL' });
});

test('nextDeadlineMs - an ACK follows within 25 ms, or 256 KiB, or with anything else', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  pair.pass(1_000);
  pair.settle();
  t.is(pair.connector.nextDeadlineMs, undefined);

  log.stream.write(Buffer.from('x'));
  pair.move(pair.client, pair.connector);
  t.is(pullRecord(pair.connector, pair.nowMs), undefined);
  t.is(pair.connector.nextDeadlineMs, pair.nowMs + 25);
  pair.pass(24);
  t.is(pullRecord(pair.connector, pair.nowMs), undefined);
  pair.pass(1);
  t.deepEqual(typesOf(pullRecord(pair.connector, pair.nowMs)), [FrameType.Ack]);
  t.is(pair.connector.nextDeadlineMs, undefined);

  log.stream.write(Buffer.from('x'));
  pair.move(pair.client, pair.connector);
  pair.served[0]?.stream.write(Buffer.from('y'));
  t.deepEqual(typesOf(pullRecord(pair.connector, pair.nowMs)), [FrameType.Ack, FrameType.Data]);
  t.is(pair.connector.nextDeadlineMs, undefined);
});
