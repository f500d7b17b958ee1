import test from 'ava';
import { decodeCount, encodeFrame, FrameType, readFrames } from '../../protocol/frame.ts';
import { verifyGrantAtConnector } from '../../protocol/grant.ts';
import { ClientHandshake, ConnectorHandshake, type Transport } from '../../protocol/handshake.ts';
import { ClientResume, ConnectorResume, resumeSecretOf } from '../../protocol/resume.ts';
import { ByteBudget } from '../../protocol/window.ts';
import { TestAuthority, testNowMs } from '../support/authority.ts';
import {
  newClient,
  pattern,
  pullRecord,
  resumedClient,
  resumedConnector,
  StreamLog,
  TunnelPair,
} from '../support/tunnel-pair.ts';

const authority = new TestAuthority();
const refused = { code: 'ERR_TUNNEL_RESUME_REFUSED' };
const unexpected = { code: 'ERR_FRAME_UNEXPECTED' };

/** Both ends of one path, by a real handshake. */
function meet(): { client: Transport; connector: Transport } {
  const { bundle, relay, connector, instance, deviceKeys, connectorKeys } = authority;
  const permit = authority.permit();
  const from = new ClientHandshake({ permit, rootId: bundle.rootId, relay, deviceKeys });
  const { statement: grantStatement } = permit.grant;
  const to = new ConnectorHandshake({ grantStatement, bundle, relay, connectorKeys });
  const { message3, transport } = from.receiveMessage2(to.receiveMessage1(from.message1()));
  const proved = to.receiveMessage3(message3);
  const { peerStatic } = proved;
  const at = { bundle, connector, instance, peerStatic, nowMs: testNowMs };
  const grant = verifyGrantAtConnector(grantStatement, at);
  return { client: transport, connector: proved.admit(grant) };
}

/** A tunnel's secret and the handshakes of its second path. */
function secondPath() {
  const first = meet();
  const second = meet();
  const secret = {
    client: resumeSecretOf(first.client),
    connector: resumeSecretOf(first.connector),
  };
  return {
    client: new ClientResume({ secret: secret.client, transport: second.client }),
    connector: new ConnectorResume({ secret: secret.connector, transport: second.connector }),
    secret,
    second,
  };
}

test('resume - both ends prove the first handshake on the second, and bytes go on where they were', (t) => {
  const { client, connector } = secondPath();
  const pair = new TunnelPair({ kind: 'lasting' });
  const log = new StreamLog(pair.client.open(Buffer.from('first ')));
  pair.settle();
  log.stream.write(Buffer.from('lost on the way '));
  t.truthy(pullRecord(pair.client, pair.nowMs));
  pair.lose();
  log.stream.write(Buffer.from('written meanwhile'));

  const atConnector = connector.receive(Buffer.concat(client.request()));
  pair.connector.resume(atConnector);
  const answer = pullRecord(pair.connector, pair.nowMs) ?? Buffer.alloc(0);
  t.deepEqual(
    readFrames(answer).map((frame) => frame.type),
    [FrameType.Resume, FrameType.Resumed],
  );
  t.is(pullRecord(pair.connector, pair.nowMs), undefined, 'nothing more before the client answers');
  pair.client.resume(client.receive(answer));
  pair.settle();
  t.is(pair.served[0]?.bytes.toString(), 'first lost on the way written meanwhile');
  t.false(pair.client.isDetached);
});

test('resume - a proof of another tunnel, of another path or of the other side is refused by both', (t) => {
  const good = secondPath();
  const other = secondPath();
  const request = Buffer.concat(good.client.request());
  t.throws(() => other.connector.receive(request), { ...refused, message: /./ });
  const answerOf = (path: typeof good) => {
    const pair = new TunnelPair({ kind: 'lasting' });
    pair.settle();
    pair.lose();
    pair.connector.resume(path.connector.receive(Buffer.concat(path.client.request())));
    return pullRecord(pair.connector, pair.nowMs) ?? Buffer.alloc(0);
  };
  t.notThrows(() => good.client.receive(answerOf(good)));
  t.throws(() => good.client.receive(answerOf(other)), refused);
  const laterPath = new ConnectorResume({
    secret: good.secret.connector,
    transport: meet().connector,
  });
  t.throws(() => laterPath.receive(request), refused, 'the same tunnel on a third path');
  const resumedFrame = encodeFrame(FrameType.Resumed, 0, 0, Buffer.alloc(8));
  t.throws(() => good.client.receive(Buffer.concat([request, resumedFrame])), refused, 'its own');
  const { payload } = readFrames(request)[0] ?? { payload: Buffer.alloc(0) };
  for (let index = 0; index < payload.length; index++) {
    const changed = Buffer.from(payload);
    changed[index] = (changed[index] ?? 0) ^ 1;
    t.throws(() => good.connector.receive(encodeFrame(FrameType.Resume, 0, 0, changed)), refused);
  }
});

test('resume - nothing but RESUME comes first, and nothing with it', (t) => {
  const { client, connector } = secondPath();
  const request = Buffer.concat(client.request());
  const accept = encodeFrame(FrameType.Accept, 0, 0);
  const open = encodeFrame(FrameType.Open, 1, 1);
  for (const record of [
    accept,
    open,
    Buffer.concat([request, open]),
    Buffer.concat([open, request]),
  ]) {
    t.throws(() => connector.receive(record), unexpected);
    t.throws(() => client.receive(record), unexpected);
  }
  t.throws(() => client.receive(request), unexpected, 'a proof without a number');
});

test('TunnelEndpoint - a number that the peer cannot have is refused, and so is one below what it had acknowledged', (t) => {
  for (const [what, number] of [
    ['ahead', 1_000],
    ['rolled back', 0],
  ] as const) {
    const pair = new TunnelPair({ kind: 'lasting' });
    pair.client.open(Buffer.from('x'));
    pair.settle();
    pair.pass(25);
    pair.settle();
    t.is(pair.client.unacknowledgedBytes, 0);
    pair.lose();
    t.throws(() => pair.client.resume(resumedClient(number)), refused, what);
    pair.connector.resume(resumedConnector());
    pullRecord(pair.connector, pair.nowMs);
    const bad = Buffer.alloc(8);
    bad.writeUInt32BE(1_000, 4);
    const record = encodeFrame(FrameType.Resumed, 0, 0, bad);
    t.throws(() => pair.connector.receive(record, pair.nowMs), refused);
  }
});

test('TunnelEndpoint - RESUMED comes once, and nothing before it', (t) => {
  const pair = new TunnelPair({ kind: 'lasting' });
  pair.settle();
  const resumed = encodeFrame(FrameType.Resumed, 0, 0, Buffer.alloc(8));
  t.throws(() => pair.connector.receive(resumed, pair.nowMs), unexpected);
  pair.connector.resume(resumedConnector());
  const open = encodeFrame(FrameType.Open, 1, 1);
  t.throws(() => pair.connector.receive(open, pair.nowMs), unexpected);
  pair.connector.receive(resumed, pair.nowMs);
  t.throws(() => pair.connector.receive(resumed, pair.nowMs), unexpected);
  const client = newClient();
  t.throws(() => client.endpoint.receive(resumed, 0), unexpected);
});

test('TunnelEndpoint - a tunnel of version 1 ends with its path', (t) => {
  const pair = new TunnelPair();
  const log = new StreamLog(pair.client.open());
  pair.settle();
  pair.client.detach();
  t.deepEqual(log.events, ['reset closed']);
  t.true(pair.client.isClosed);
  t.throws(() => pair.client.resume(resumedClient(0)), { code: 'ERR_TUNNEL_CLOSED' });
});

test('TunnelEndpoint - without a path a writer is told to wait, and told when it may go on', (t) => {
  const pair = new TunnelPair({ kind: 'lasting' });
  const log = new StreamLog(pair.client.open());
  pair.settle();
  pair.lose();
  t.false(log.stream.write(Buffer.from('one')));
  t.is(pullRecord(pair.client, pair.nowMs), undefined);
  t.throws(() => pair.client.receive(encodeFrame(FrameType.Ack, 0, 1), 0), {
    code: 'ERR_INTERNAL',
  });
  pair.resume();
  pair.settle();
  t.deepEqual(log.events, ['writable']);
  t.is(pair.served[0]?.bytes.toString(), 'one');
});

test('TunnelEndpoint - an end, a reset and a new stream while there is no path arrive after it', (t) => {
  const pair = new TunnelPair({ kind: 'lasting' });
  const [ended, reset] = [new StreamLog(pair.client.open()), new StreamLog(pair.client.open())];
  pair.settle();
  pair.lose();
  ended.stream.end();
  reset.stream.reset('reset');
  const opened = new StreamLog(pair.client.open(Buffer.from('new')));
  opened.stream.end();
  pair.resume();
  pair.settle();
  t.deepEqual(
    pair.served.map((log) => log.events),
    [['end'], ['reset reset'], ['end']],
  );
  t.is(pair.served[2]?.bytes.toString(), 'new');
});

test('TunnelEndpoint - an ACCEPT that was lost with the path is made up for by the next', (t) => {
  const pair = new TunnelPair({ kind: 'lasting' });
  new StreamLog(pair.client.open(Buffer.from('early')));
  pair.move(pair.client, pair.connector);
  pullRecord(pair.connector, pair.nowMs);
  pair.lose();
  pair.resume();
  pair.settle();
  t.true(pair.events.includes('accept'));
  t.is(pair.served[0]?.bytes.toString(), 'early');
});

test('TunnelEndpoint - CREDIT that was lost is told anew', (t) => {
  const pair = new TunnelPair({ kind: 'lasting' });
  const log = new StreamLog(pair.client.open());
  const bytes = pattern(1, 0, 200_000);
  log.stream.write(bytes);
  for (let i = 0; i < 50; i++) {
    pair.move(pair.client, pair.connector);
    while (pullRecord(pair.connector, pair.nowMs)); // acknowledgement and credit are lost
    pair.lose();
    pair.resume();
    pair.settle();
  }
  t.true(pair.served[0]?.bytes.equals(bytes));
});

test('TunnelEndpoint - keeps no more unacknowledged than its bound, and goes on when it is acknowledged', (t) => {
  const replayBudget = new ByteBudget(1_000_000);
  const pair = new TunnelPair({
    kind: 'lasting',
    limits: { replayBytes: 500_000 },
    replayBudget,
  });
  const log = new StreamLog(pair.client.open());
  pair.settle();
  const bytes = pattern(2, 0, 8_000_000);
  log.stream.write(bytes);
  const records: Buffer[] = [];
  let mostBytes = 0;
  for (let i = 0; i < 1_000; i++) {
    // The connector reads and gives credit, but its ACKs do not arrive.
    const record = pullRecord(pair.client, pair.nowMs);
    mostBytes = Math.max(mostBytes, pair.client.unacknowledgedBytes);
    if (record) records.push(record);
    else break;
    pair.connector.receive(record, pair.nowMs);
    const answer = pullRecord(pair.connector, pair.nowMs);
    const credit = readFrames(answer ?? encodeFrame(FrameType.Ack, 0, 1)).filter(
      (frame) => frame.type === FrameType.Credit,
    );
    for (const { type, stream, payload } of credit) {
      pair.client.receive(encodeFrame(type, stream, 0, payload), pair.nowMs);
    }
  }
  t.true(mostBytes > 400_000, String(mostBytes));
  t.true(mostBytes <= 500_000 + 2 * 65_536, String(mostBytes));
  t.true(replayBudget.freeBytes < 1_000_000);
  pair.lose();
  pair.resume();
  pair.settle();
  pair.pass(25);
  pair.settle();
  t.true(pair.served[0]?.bytes.equals(bytes));
  t.is(pair.client.unacknowledgedBytes, 0);
  t.is(replayBudget.freeBytes, 1_000_000, 'and the room is given back');
});

test('TunnelEndpoint - closed without a path it has nothing to say and gives its room back', (t) => {
  const replayBudget = new ByteBudget(1_000_000);
  const pair = new TunnelPair({ kind: 'lasting', replayBudget });
  const log = new StreamLog(pair.client.open(pattern(1, 0, 60_000)));
  pullRecord(pair.client, pair.nowMs);
  pair.lose();
  pair.client.close('ERR_TUNNEL_CLOSED', 'test_over');
  t.true(pair.client.isClosed);
  t.is(pullRecord(pair.client, pair.nowMs), undefined);
  t.deepEqual(log.events, ['reset closed']);
  t.is(pair.client.unacknowledgedBytes, 0);
  t.is(replayBudget.freeBytes, 1_000_000);
});

test('resume - states the number that was received last', (t) => {
  const pair = new TunnelPair({ kind: 'lasting' });
  pair.client.open(Buffer.from('x'));
  pair.client.open(Buffer.from('y'));
  pair.settle();
  pair.connector.resume(resumedConnector());
  const [, resumed] = readFrames(pullRecord(pair.connector, pair.nowMs) ?? Buffer.alloc(0));
  t.is(decodeCount(resumed?.payload ?? Buffer.alloc(8)), 2);
});
