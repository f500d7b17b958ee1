import test from 'ava';
import { encodeCount, encodeFrame, FrameType, readFrames } from '../../protocol/frame.ts';
import { pattern, pullRecord, StreamLog, TunnelPair } from '../support/tunnel-pair.ts';
import type { TunnelEndpoint } from '../../protocol/tunnel-endpoint.ts';

/*
 * Ends that tell each other what they hear send no more than the path delivers soon, and repeat large frames in parts.
 */

const unexpected = { code: 'ERR_FRAME_UNEXPECTED' };

function pullAll(endpoint: TunnelEndpoint, nowMs: number): Buffer[] {
  const records: Buffer[] = [];
  for (let next = pullRecord(endpoint, nowMs); next; next = pullRecord(endpoint, nowMs)) {
    records.push(next);
  }
  return records;
}

/** A pair with one stream, on which `bytes` were sent in one record and lost with the path. */
function withLostRecord(bytes: number): { pair: TunnelPair; log: StreamLog; sent: Buffer } {
  const pair = new TunnelPair({ kind: 'paced' });
  const log = new StreamLog(pair.client.open());
  pair.settle();
  for (let i = 0; i < 20; i++) {
    log.stream.write(Buffer.alloc(20_000));
    pair.settle();
    pair.pass(25);
    pair.settle();
  }
  const sent = pattern(7, 0, bytes);
  log.stream.write(sent);
  const [record] = pullAll(pair.client, pair.nowMs);
  if (record === undefined) throw new Error('nothing was sent');
  pair.lose();
  pair.resume();
  return { pair, log, sent };
}

const tail = (pair: TunnelPair, bytes: number): Buffer => {
  const all = pair.served[0]?.bytes ?? Buffer.alloc(0);
  return all.subarray(all.length - bytes);
};

test('TunnelEndpoint - on a new path sends 16 KiB, and more only as the peer hears of it', (t) => {
  const pair = new TunnelPair({ kind: 'paced' });
  const log = new StreamLog(pair.client.open());
  pair.settle();
  pair.pass(25);
  pair.settle();
  log.stream.write(Buffer.alloc(60_000));
  const records = pullAll(pair.client, pair.nowMs);
  const bytes = records.reduce((sum, record) => sum + record.length, 0);
  t.true(bytes > 15_000 && bytes < 17_000, `${bytes}`);
  for (const record of records) pair.connector.receive(record, pair.nowMs);
  pair.pass(25);
  pair.settle();
  t.is(pair.served[0]?.receivedBytes, 60_000);
});

test('TunnelEndpoint - an older peer, which tells nothing, is sent all that it has credit for', (t) => {
  const pair = new TunnelPair({ kind: 'lasting' });
  const log = new StreamLog(pair.client.open());
  pair.settle();
  log.stream.write(Buffer.alloc(60_000));
  const [record] = pullAll(pair.client, pair.nowMs);
  t.true((record?.length ?? 0) > 60_000);
});

test('TunnelEndpoint - a frame larger than the new path should carry at once goes again in parts, each byte once', (t) => {
  const { pair, sent } = withLostRecord(60_000);
  const records = pullAll(pair.client, pair.nowMs);
  const types = records.flatMap((record) => readFrames(record).map((frame) => frame.type));
  t.is(types.filter((type) => type === FrameType.Part).length, 4);
  t.false(types.includes(FrameType.Data));
  for (const record of records) pair.connector.receive(record, pair.nowMs);
  pair.pass(25);
  pair.settle();
  t.true(tail(pair, sent.length).equals(sent));
  pair.pass(25);
  pair.settle();
  t.is(pair.client.unacknowledgedBytes, 0);
});

test('TunnelEndpoint - parts whose path is lost before the rest came are not delivered twice', (t) => {
  const { pair, sent } = withLostRecord(60_000);
  for (let taken = 1; taken <= 3; taken++) {
    for (const record of pullAll(pair.client, pair.nowMs).slice(0, taken)) {
      pair.connector.receive(record, pair.nowMs);
    }
    pair.lose();
    pair.resume();
  }
  pair.settle();
  pair.pass(25);
  pair.settle();
  t.true(tail(pair, sent.length).equals(sent));
});

test('TunnelEndpoint - while something is sent again it tells what it heard and credit, but acknowledges nothing', (t) => {
  const { pair, log } = withLostRecord(60_000);
  pullAll(pair.client, pair.nowMs);
  const frame = encodeFrame(FrameType.Data, 1, 1, Buffer.alloc(3_000));
  pair.client.receive(frame, pair.nowMs);
  pair.pass(25);
  const types = pullAll(pair.client, pair.nowMs).flatMap((record) =>
    readFrames(record).map((frame) => frame.type),
  );
  t.true(types.includes(FrameType.Heard));
  t.false(types.includes(FrameType.Ack));
  t.is(log.receivedBytes, 3_000);
});

test('receive - PART of another number or stream, or before another frame than its DATA, is refused', (t) => {
  const part = (stream: number, number: number) =>
    encodeFrame(FrameType.Part, stream, number, Buffer.from('part'));
  const fresh = (): TunnelEndpoint => {
    const pair = new TunnelPair({ kind: 'paced' });
    pair.client.open();
    pair.client.open();
    pair.settle();
    return pair.connector;
  };
  const receive = (endpoint: TunnelEndpoint, frame: Buffer) => () => {
    endpoint.receive(frame, 0);
  };
  for (const number of [1, 2, 4]) t.throws(receive(fresh(), part(1, number)), unexpected);
  t.throws(receive(fresh(), part(5, 3)), unexpected, 'a stream that is not there');
  for (const wrong of [
    part(3, 3),
    part(1, 4),
    encodeFrame(FrameType.Data, 3, 3, Buffer.from('x')),
    encodeFrame(FrameType.Fin, 1, 3),
    encodeFrame(FrameType.Open, 5, 3),
  ]) {
    const endpoint = fresh();
    t.notThrows(receive(endpoint, part(1, 3)));
    t.throws(receive(endpoint, wrong), unexpected);
  }
  const good = fresh();
  t.notThrows(receive(good, part(1, 3)));
  t.notThrows(receive(good, part(1, 3)));
  t.notThrows(receive(good, encodeFrame(FrameType.Data, 1, 3, Buffer.from('x'))));
  t.notThrows(receive(good, encodeFrame(FrameType.Fin, 1, 4)));
});

test('receive - HEARD of more than was sent on this path is refused', (t) => {
  const pair = new TunnelPair({ kind: 'paced' });
  pair.client.open(Buffer.from('hello'));
  pair.settle();
  const heard = (bytes: number) => encodeFrame(FrameType.Heard, 0, 0, encodeCount(bytes));
  t.notThrows(() => {
    pair.client.receive(heard(21), pair.nowMs);
  });
  t.throws(() => {
    pair.client.receive(heard(22), pair.nowMs);
  }, unexpected);
  pair.lose();
  pair.resume();
  t.throws(() => {
    pair.client.receive(heard(21), pair.nowMs);
  }, unexpected);
});

test('stuckMs - grows while bytes wait to be heard of and others arrive, and is 0 without either', (t) => {
  const pair = new TunnelPair({ kind: 'paced' });
  const log = new StreamLog(pair.client.open());
  pair.settle();
  pair.pass(25);
  pair.settle();
  t.is(pair.client.stuckMs(pair.nowMs + 10_000, 1_500), 0, 'nothing waits');
  log.stream.write(Buffer.from('x'));
  pullAll(pair.client, pair.nowMs);
  const sentAtMs = pair.nowMs;
  t.is(pair.client.stuckMs(sentAtMs + 10_000, 1_500), 0, 'nothing arrives');
  pair.pass(5_000);
  pair.served[0]?.stream.write(Buffer.from('y'));
  for (const record of pullAll(pair.connector, pair.nowMs)) pair.client.receive(record, pair.nowMs);
  t.is(pair.client.stuckMs(pair.nowMs, 1_500), 5_000);
  pair.lose();
  t.is(pair.client.stuckMs(pair.nowMs, 1_500), 0, 'there is no path');
});
