import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import test from 'ava';
import type { WebSocket } from 'ws';
import type { PathParts } from '../../../protocol/host/path-keeper.ts';
import type { ZtnaError } from '../../../protocol/index.ts';
import { encodeFrame, FrameType } from '../../../protocol/frame.ts';
import { RecordOpener, RecordSealer } from '../../../protocol/record.ts';
import { newPathKeys, TunnelLink, type TunnelLinkOptions } from '../../support/tunnel-link.ts';
import { pattern, resumedClient, resumedConnector, StreamLog } from '../../support/tunnel-pair.ts';

/** A lasting tunnel between two ends, with what each end told. */
class Lasting {
  readonly link: TunnelLink;
  readonly served: StreamLog[];
  readonly lost: { readonly client: ZtnaError[]; readonly connector: ZtnaError[] };

  private constructor(link: TunnelLink, served: StreamLog[], lost: Lasting['lost']) {
    this.link = link;
    this.served = served;
    this.lost = lost;
  }

  static async open(options: Partial<TunnelLinkOptions> = {}): Promise<Lasting> {
    const served: StreamLog[] = [];
    const lost: Lasting['lost'] = { client: [], connector: [] };
    const link = await TunnelLink.open({
      isLasting: true,
      onStream: (stream) => served.push(new StreamLog(stream)),
      ...options,
      client: { onDetached: (error) => lost.client.push(error), ...options.client },
      connector: { onDetached: (error) => lost.connector.push(error), ...options.connector },
    });
    await link.accepted;
    return new Lasting(link, served, lost);
  }

  /** Joins the two ends by another path, as a proved resume would. */
  async replace(): Promise<readonly [client: WebSocket, connector: WebSocket]> {
    const { link } = this;
    const sockets = await link.anotherPath();
    const { up, down } = newPathKeys();
    const connector: PathParts = {
      webSocket: sockets[1],
      sealer: new RecordSealer(down),
      opener: new RecordOpener(up),
    };
    const client: PathParts = {
      webSocket: sockets[0],
      sealer: new RecordSealer(up),
      opener: new RecordOpener(down),
    };
    link.connector.replace(connector, resumedConnector());
    // What the connector answers first is the proof, which is believed here.
    const [answer] = (await once(sockets[0], 'message')) as [Buffer];
    const number = client.opener.open(answer).readUInt32BE(16 + 32 + 16 + 4);
    link.client.replace(client, resumedClient(number));
    return sockets;
  }

  /** Resolves when both ends have lost the path. */
  async detached(): Promise<void> {
    const { client, connector } = this.link;
    await until(() => client.isDetached && connector.isDetached);
  }
}

/** Looks again and again, for as long as the test may take. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await wait(2);
}

test('PathKeeper - keeps the streams of a path that is cut, and sends on the next one what was lost', async (t) => {
  const tunnel = await Lasting.open();
  const { link, served } = tunnel;
  const sent = pattern(3, 0, 3_000_000);
  const log = new StreamLog(link.client.endpoint.open());
  log.stream.write(sent.subarray(0, 1_000_000));
  await until(() => (served[0]?.receivedBytes ?? 0) > 100_000);
  link.connectorSocket.terminate();
  await tunnel.detached();
  t.is(tunnel.lost.client[0]?.code, 'ERR_TUNNEL_PATH_LOST');
  const heldBytes = served[0]?.receivedBytes ?? 0;
  t.false(log.stream.write(sent.subarray(1_000_000, 2_000_000)));
  t.deepEqual(log.events, []);
  await tunnel.replace();
  log.stream.write(sent.subarray(2_000_000));
  log.stream.end();
  await until(() => served[0]?.events.includes('end') === true);
  t.true(heldBytes < sent.length);
  t.true(served[0]?.bytes.equals(sent));
  await link.close();
});

test('PathKeeper - moves to another path while bytes are under way, and retires the one before', async (t) => {
  const tunnel = await Lasting.open();
  const { link, served } = tunnel;
  const sent = pattern(5, 0, 4_000_000);
  const log = new StreamLog(link.client.endpoint.open());
  const oldClosed = Promise.all([
    once(link.clientSocket, 'close'),
    once(link.connectorSocket, 'close'),
  ]);
  for (let at = 0; at < sent.length; at += 500_000) {
    log.stream.write(sent.subarray(at, at + 500_000));
    await until(() => (served[0]?.receivedBytes ?? 0) > at);
    await tunnel.replace();
  }
  log.stream.end();
  await until(() => served[0]?.events.includes('end') === true);
  t.true(served[0]?.bytes.equals(sent));
  t.deepEqual(tunnel.lost.client, []);
  t.deepEqual(tunnel.lost.connector, []);
  await oldClosed;
  await link.close();
});

test('PathKeeper - a record that does not open costs the path, not the tunnel', async (t) => {
  const tunnel = await Lasting.open();
  const { link, served } = tunnel;
  const log = new StreamLog(link.client.endpoint.open(Buffer.from('before')));
  await until(() => served[0]?.receivedBytes === 6);
  link.clientSocket.send(Buffer.alloc(100));
  await tunnel.detached();
  t.is(tunnel.lost.connector[0]?.code, 'ERR_RECORD_TAMPERED');
  t.is(tunnel.lost.client[0]?.code, 'ERR_RECORD_TAMPERED');
  await tunnel.replace();
  log.stream.write(Buffer.from(' after'));
  await until(() => served[0]?.receivedBytes === 12);
  t.is(served[0]?.bytes.toString(), 'before after');
  await link.close();
});

test('PathKeeper - once the lease is over nothing passes, and everything is kept', async (t) => {
  for (const side of ['client', 'connector'] as const) {
    let isLive = true;
    const tunnel = await Lasting.open({ [side]: { mayPass: () => isLive } });
    const { link, served } = tunnel;
    isLive = false;
    const log = new StreamLog(link.client.endpoint.open(Buffer.from('waits')));
    await tunnel.detached();
    t.is(served.length, 0);
    t.deepEqual(log.events, []);
    isLive = true;
    await tunnel.replace();
    await until(() => served[0]?.receivedBytes === 5);
    await link.close();
  }
});

test('PathKeeper - nothing that a relay says ends the tunnel', async (t) => {
  for (const [code, text] of [
    [4410, 'ERR_TUNNEL_REVOKED'],
    [4400, 'ERR_TUNNEL_CLOSED'],
    [1000, ''],
  ] as const) {
    const tunnel = await Lasting.open();
    const { link } = tunnel;
    const log = new StreamLog(link.client.endpoint.open(Buffer.from('x')));
    link.connectorSocket.close(code, text);
    await tunnel.detached();
    link.client.lose(tunnel.lost.client[0] as ZtnaError); // again: there is nothing to lose
    t.is(tunnel.lost.client.length, 1);
    t.deepEqual(log.events, []);
    await link.close();
  }
  const tunnel = await Lasting.open();
  tunnel.link.connectorSocket.send('{"type":"assign"}');
  await tunnel.detached();
  t.is(tunnel.lost.client[0]?.code, 'ERR_MESSAGE_UNEXPECTED');
  await tunnel.link.close();
});

test('PathKeeper - a frame that breaks the rules ends the tunnel, with its code at both ends', async (t) => {
  const tunnel = await Lasting.open();
  const { link } = tunnel;
  const log = new StreamLog(link.client.endpoint.open(Buffer.from('x')));
  const { up, down } = newPathKeys();
  const sockets = await link.anotherPath();
  link.connector.replace(
    { webSocket: sockets[1], sealer: new RecordSealer(down), opener: new RecordOpener(up) },
    resumedConnector(),
  );
  await until(() => link.client.isDetached);
  t.deepEqual(log.events, []);
  // The other end of the new path has proved itself, and then claims to have what was never sent.
  const number = Buffer.alloc(8);
  number.writeBigUInt64BE(99n);
  const record = new RecordSealer(up).seal([encodeFrame(FrameType.Resumed, 0, 0, number)]);
  sockets[0].send(Buffer.concat(record));
  const error = await link.connectorEnd;
  t.is(error.code, 'ERR_TUNNEL_RESUME_REFUSED');
  await link.close();
});

test('PathKeeper - resets everything when nobody comes for as long as it is held', async (t) => {
  const tunnel = await Lasting.open({ client: { holdMs: 5 }, connector: { holdMs: 5 } });
  const { link, served } = tunnel;
  const log = new StreamLog(link.client.endpoint.open(Buffer.from('x')));
  await until(() => served.length === 1);
  link.clientSocket.terminate();
  for (const end of [link.clientEnd, link.connectorEnd]) {
    const { code, reason } = await end;
    t.deepEqual([code, reason], ['ERR_TUNNEL_PATH_LOST', 'hold_over']);
  }
  t.deepEqual(log.events, ['reset closed']);
  t.deepEqual(served[0]?.events, ['reset closed']);
  await t.throwsAsync(tunnel.replace(), { code: 'ERR_TUNNEL_CLOSED' });
  await link.close();
});

test('PathKeeper.close - resets the streams of a detached tunnel at once', async (t) => {
  const tunnel = await Lasting.open();
  const { link } = tunnel;
  const log = new StreamLog(link.client.endpoint.open(Buffer.from('x')));
  link.clientSocket.terminate();
  await tunnel.detached();
  t.true(link.client.holdLeftMs > 0);
  link.client.close('ERR_TUNNEL_REVOKED', 'user_disabled');
  const { code, reason } = await link.clientEnd;
  t.deepEqual([code, reason], ['ERR_TUNNEL_REVOKED', 'user_disabled']);
  t.deepEqual(log.events, ['reset closed']);
  t.is(link.client.holdLeftMs, 0);
  await link.close();
});

test('PathKeeper.replace - leaves the present path alone when the other is closed, or its peer claims too much', async (t) => {
  const tunnel = await Lasting.open();
  const { link, served } = tunnel;
  const [gone] = await link.anotherPath();
  const closed = once(gone, 'close');
  gone.terminate();
  await closed;
  const { up, down } = newPathKeys();
  const keys = { sealer: new RecordSealer(up), opener: new RecordOpener(down) };
  t.throws(
    () => {
      link.client.replace({ webSocket: gone, ...keys }, resumedClient(0));
    },
    { code: 'ERR_TUNNEL_PATH_LOST' },
  );
  const [other] = await link.anotherPath();
  t.throws(
    () => {
      link.client.replace({ webSocket: other, ...keys }, resumedClient(99));
    },
    { code: 'ERR_TUNNEL_RESUME_REFUSED' },
  );
  link.client.endpoint.open(Buffer.from('still here'));
  await until(() => served[0]?.receivedBytes === 10);
  other.terminate();
  await link.close();
});
