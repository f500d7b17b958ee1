import test from 'ava';
import { encodeFrame, encodeReset, FrameType, readFrames } from '../../protocol/frame.ts';
import { defaultTunnelLimits } from '../../protocol/tunnel-limits.ts';
import { newConnector, pullRecord, StreamLog, TunnelPair } from '../support/tunnel-pair.ts';

const open = (stream: number, number: number) => encodeFrame(FrameType.Open, stream, number);
const reset = (stream: number, number: number) =>
  encodeFrame(FrameType.Reset, stream, number, encodeReset('reset'));
const tooFast = { code: 'ERR_LIMIT_RATE' };

test('open - refuses one stream above the limit, until one is over', (t) => {
  const pair = new TunnelPair({ limits: { streams: 3 } });
  const logs = Array.from({ length: 3 }, () => new StreamLog(pair.client.open()));
  t.throws(() => pair.client.open(), { code: 'ERR_LIMIT_STREAMS' });
  pair.settle();
  logs[0]?.stream.reset('closed');
  t.notThrows(() => pair.client.open());
});

test('TunnelEndpoint - the connector answers one stream above its limit with RESET limit and serves the rest', (t) => {
  const { endpoint, served } = newConnector({ streams: 2 });
  for (let i = 0; i < 3; i++) endpoint.receive(open(2 * i + 1, i + 1), 0);
  t.is(served.length, 2);
  t.is(endpoint.streamCount, 2);
  const record = pullRecord(endpoint, 0) ?? Buffer.alloc(0);
  const resets = readFrames(record).filter(({ type }) => type === FrameType.Reset);
  t.deepEqual(
    resets.map(({ stream, payload }) => [stream, payload]),
    [[5, encodeReset('limit')]],
  );
  endpoint.receive(reset(1, 4), 0);
  endpoint.receive(open(7, 5), 0);
  t.is(served.length, 3);
});

test('TunnelEndpoint - a storm of streams opened only to be reset ends the tunnel', (t) => {
  const { endpoint, served } = newConnector();
  const storm = (): void => {
    for (let i = 0; i < 50_000; i++) {
      endpoint.receive(
        Buffer.concat([open(2 * i + 1, 2 * i + 1), reset(2 * i + 1, 2 * i + 2)]),
        i / 50,
      );
    }
  };
  t.throws(storm, tooFast);
  t.true(served.length < 110, String(served.length));
});

test('TunnelEndpoint - a storm of streams above the limit ends the tunnel', (t) => {
  const { endpoint, served } = newConnector({ streams: 10 });
  t.throws(() => {
    for (let i = 0; i < 1_000; i++) endpoint.receive(open(2 * i + 1, i + 1), 0);
  }, tooFast);
  t.is(served.length, 10);
});

test('TunnelEndpoint - streams that are reset after a second, or at a human pace, are no storm', (t) => {
  const { endpoint, served } = newConnector();
  let number = 0;
  let nowMs = 0;
  for (let round = 0; round < 5; round++) {
    const first = round * 1_000;
    for (let i = 0; i < 500; i++) endpoint.receive(open(2 * (first + i) + 1, ++number), nowMs);
    nowMs += 1_000;
    for (let i = 0; i < 500; i++) endpoint.receive(reset(2 * (first + i) + 1, ++number), nowMs);
  }
  for (let i = 0; i < 500; i++) {
    nowMs += 25;
    endpoint.receive(open(20_001 + 2 * i, ++number), nowMs);
    endpoint.receive(reset(20_001 + 2 * i, ++number), nowMs);
  }
  t.is(served.length, 3_000);
});

test('TunnelEndpoint - a client that never acknowledges cannot make the connector keep ever more streams', (t) => {
  const { endpoint, served } = newConnector({ lingeringStreams: 100 });
  const run = (): void => {
    let number = 0;
    for (let i = 0; i < 1_000; i++) {
      endpoint.receive(open(2 * i + 1, ++number), 0);
      served.at(-1)?.stream.reset('refused');
      while (pullRecord(endpoint, 0));
    }
  };
  t.throws(run, tooFast);
  t.is(endpoint.lingeringStreamCount, 100);
});

test('TunnelEndpoint - streams that are over and acknowledged leave nothing behind', (t) => {
  const pair = new TunnelPair();
  for (let i = 0; i < 3_000; i++) {
    const log = new StreamLog(pair.client.open(Buffer.from('x')));
    log.stream.end();
    pair.settle();
    pair.served.at(-1)?.stream.end();
    pair.settle();
    if (i % 500 === 0) pair.pass(25);
  }
  pair.pass(25);
  pair.settle();
  for (const endpoint of [pair.client, pair.connector]) {
    t.is(endpoint.streamCount, 0);
    t.is(endpoint.lingeringStreamCount, 0);
  }
});

test('TunnelEndpoint - by default a thousand streams may be open', (t) => {
  const pair = new TunnelPair();
  for (let i = 0; i < defaultTunnelLimits.streams; i++) new StreamLog(pair.client.open());
  pair.settle();
  t.is(pair.connector.streamCount, 1_000);
  t.throws(() => pair.client.open(), { code: 'ERR_LIMIT_STREAMS' });
});
