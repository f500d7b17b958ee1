import { once } from 'node:events';
import test from 'ava';
import { WebSocket, WebSocketServer } from 'ws';
import { MessageWriter } from '../../../protocol/host/message-writer.ts';
import { pattern, StreamLog } from '../../support/tunnel-pair.ts';
import { TunnelLink } from '../../support/tunnel-link.ts';
import type { TunnelStream } from '../../../protocol/stream.ts';

/** Ends its side once the peer has ended, and tells when the stream is done. */
class Sink extends StreamLog {
  readonly done = Promise.withResolvers<undefined>();

  override onEnd(): void {
    super.onEnd();
    this.stream.end();
    this.done.resolve(undefined);
  }

  override onReset(code: string): void {
    super.onReset(code);
    this.done.resolve(undefined);
  }
}

test('RecordPump - carries a stream there and back, sealed', async (t) => {
  const seen: Buffer[] = [];
  const sinks: Sink[] = [];
  const link = await TunnelLink.open({
    onStream: (stream) => {
      const sink = new Sink(stream);
      sinks.push(sink);
      stream.write(pattern(9, 0, 50_000));
    },
  });
  link.connectorSocket.on('message', (message) => seen.push(message as Buffer));
  const log = new Sink(link.client.endpoint.open());
  const up = Buffer.concat([Buffer.from('not to be seen '), pattern(1, 0, 60_000)]);
  log.stream.write(up);
  log.stream.end();
  await log.done.promise;
  t.true(sinks[0]?.bytes.equals(up));
  t.true(log.bytes.equals(pattern(9, 0, 50_000)));
  t.true(seen.length > 0);
  t.false(Buffer.concat(seen).includes('not to be seen'));
  await link.close();
});

test('RecordPump - a writer that does not wait is held back, and nothing is lost', async (t) => {
  const sinks: Sink[] = [];
  const link = await TunnelLink.open({ onStream: (stream) => sinks.push(new Sink(stream)) });
  const done = Promise.withResolvers<undefined>();
  let sentBytes = 0;
  const chunk = pattern(4, 0, 65_536);
  let mostBuffered = 0;
  const send = (stream: TunnelStream): void => {
    while (sentBytes < 20_000_000) {
      sentBytes += chunk.length;
      mostBuffered = Math.max(mostBuffered, link.clientSocket.bufferedAmount);
      if (!stream.write(chunk)) return;
    }
    stream.end();
  };
  const stream = link.client.endpoint.open();
  stream.attach({
    onData: () => undefined,
    onEnd: () => {
      done.resolve(undefined);
    },
    onReset: () => t.fail(),
    onWritable: () => {
      send(stream);
    },
  });
  send(stream);
  await done.promise;
  t.is(sinks[0]?.receivedBytes, sentBytes);
  t.true(mostBuffered < 2_000_000, String(mostBuffered));
  await link.close();
});

test('RecordPump - close tells the peer the code inside the tunnel and on the WebSocket', async (t) => {
  const sinks: Sink[] = [];
  const link = await TunnelLink.open({ onStream: (stream) => sinks.push(new Sink(stream)) });
  const log = new Sink(link.client.endpoint.open(Buffer.from('x')));
  await link.accepted;
  const closed = once(link.clientSocket, 'close');
  link.connector.close('ERR_TUNNEL_REVOKED', 'device_revoked');
  const error = await link.clientEnd;
  t.is(error.code, 'ERR_TUNNEL_REVOKED');
  t.is(error.reason, 'device_revoked');
  await log.done.promise;
  t.deepEqual(log.events, ['reset closed']);
  const [closeCode, text] = (await closed) as [number, Buffer];
  t.is(closeCode, 4410);
  t.is(text.toString(), 'ERR_TUNNEL_REVOKED');
  t.is((await link.connectorEnd).code, 'ERR_TUNNEL_REVOKED');
  await link.close();
});

test('RecordPump - a record that does not open ends the tunnel and delivers nothing', async (t) => {
  const sinks: Sink[] = [];
  const link = await TunnelLink.open({ onStream: (stream) => sinks.push(new Sink(stream)) });
  await link.accepted;
  link.clientSocket.send(Buffer.alloc(100));
  t.is((await link.connectorEnd).code, 'ERR_RECORD_TAMPERED');
  t.is((await link.clientEnd).code, 'ERR_RECORD_TAMPERED');
  t.is(sinks.length, 0);
  await link.close();
});

test('RecordPump - once the lease is over nothing is delivered and nothing is sent', async (t) => {
  for (const side of ['client', 'connector'] as const) {
    let isLive = true;
    const sinks: Sink[] = [];
    const link = await TunnelLink.open({
      onStream: (stream) => sinks.push(new Sink(stream)),
      [side]: { mayPass: () => isLive },
    });
    await link.accepted;
    isLive = false;
    const log = new Sink(link.client.endpoint.open(Buffer.from('too late')));
    const end = await (side === 'client' ? link.clientEnd : link.connectorEnd);
    t.is(end.code, 'ERR_TUNNEL_LEASE_EXPIRED');
    t.is(end.reason, 'lease_expired');
    const peerEnd = await (side === 'client' ? link.connectorEnd : link.clientEnd);
    t.is(peerEnd.code, 'ERR_TUNNEL_LEASE_EXPIRED');
    await log.done.promise;
    t.deepEqual(log.events, ['reset closed']);
    t.is(sinks.length, 0);
    await link.close();
  }
});

test('RecordPump - a path that is cut resets the streams, as a lost path', async (t) => {
  const link = await TunnelLink.open({ onStream: (stream) => new Sink(stream) });
  const log = new Sink(link.client.endpoint.open(Buffer.from('x')));
  await link.accepted;
  link.connectorSocket.terminate();
  t.is((await link.clientEnd).code, 'ERR_TUNNEL_PATH_LOST');
  await log.done.promise;
  t.deepEqual(log.events, ['reset closed']);
  await link.close();
});

test('RecordPump - hands a drain notice on; any other text ends a tunnel that has one path', async (t) => {
  const heard = Promise.withResolvers<undefined>();
  const link = await TunnelLink.open({
    onStream: () => undefined,
    client: {
      onDrain: () => {
        heard.resolve(undefined);
      },
    },
  });
  await link.accepted;
  link.connectorSocket.send('{"type":"drain"}');
  await heard.promise;
  t.false(link.client.hasEnded);
  link.clientSocket.send('nobody asked');
  t.is((await link.connectorEnd).code, 'ERR_MESSAGE_UNEXPECTED');
  await link.close();
});

test('RecordPump - a silent stream end is acknowledged without further traffic', async (t) => {
  const sinks: Sink[] = [];
  const link = await TunnelLink.open({ onStream: (stream) => sinks.push(new Sink(stream)) });
  const log = new Sink(link.client.endpoint.open(Buffer.from('x')));
  log.stream.end();
  await log.done.promise;
  while (
    link.client.endpoint.lingeringStreamCount + link.connector.endpoint.lingeringStreamCount >
    0
  ) {
    await Promise.race([once(link.clientSocket, 'message'), once(link.connectorSocket, 'message')]);
  }
  t.is(link.client.endpoint.streamCount, 0);
  await link.close();
});

test('MessageWriter - writes frames that ws reads, of any length, masked from a client', async (t) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const client = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false });
  const [[other]] = (await Promise.all([once(server, 'connection'), once(client, 'open')])) as [
    [WebSocket],
    unknown,
  ];
  for (const [from, to] of [
    [client, other],
    [other, client],
  ] as const) {
    const writer = new MessageWriter(from);
    for (const length of [0, 1, 125, 126, 127, 65_534, 65_535]) {
      const sent = pattern(1, 0, length);
      const heard = once(to, 'message');
      writer.write([sent.subarray(0, 10), sent.subarray(10, 20), sent.subarray(20)]);
      const [message, isBinary] = (await heard) as [Buffer, boolean];
      t.true(isBinary);
      t.true(message.equals(sent));
    }
    t.throws(
      () => {
        writer.write([Buffer.alloc(65_536)]);
      },
      { code: 'ERR_INTERNAL' },
    );
  }
  client.terminate();
  await once(other, 'close');
  t.throws(() => new MessageWriter(other), { code: 'ERR_INTERNAL' });
  server.close();
});
