import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import test from 'ava';
import { decodeGreeting, encodeGreeting, FlowReceiver, FlowSocket, type FlowSpec } from './flow.ts';
import { faultsOf } from './traffic.ts';

const cellBytes = 100;
const spec: FlowSpec = {
  flow: 7,
  cellBytes,
  intervalMs: 0,
  upBytes: 10 * cellBytes,
  downBytes: cellBytes,
};

/** Two joined sockets. */
async function pair(): Promise<[Socket, Socket]> {
  const server = createServer({ allowHalfOpen: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = connect({ port: (server.address() as AddressInfo).port, allowHalfOpen: true });
  const [far] = (await once(server, 'connection')) as [Socket];
  server.close();
  return [near, far];
}

/** The cells of one direction, as a flow sends them. */
async function cells(of: FlowSpec = spec): Promise<Buffer[]> {
  const [near, far] = await pair();
  const chunks: Buffer[] = [];
  far.on('data', (chunk: Buffer) => chunks.push(chunk));
  new FlowSocket(near, of, 'up');
  await once(far, 'end');
  far.end();
  const all = Buffer.concat(chunks);
  return Array.from({ length: all.length / cellBytes }, (_, at) =>
    all.subarray(at * cellBytes, (at + 1) * cellBytes),
  );
}

function received(chunks: readonly (Buffer | undefined)[], of: FlowSpec = spec): FlowReceiver {
  const receiver = new FlowReceiver(of, 'up');
  for (const chunk of chunks) if (chunk) receiver.receive(Buffer.from(chunk));
  return receiver;
}

test('flow - what arrives as it was sent is complete and without violation, however it is cut', async (t) => {
  const sent = await cells();
  t.is(sent.length, 10);
  for (const size of [1, 7, 24, 25, 99, 100, 101, 1_000]) {
    const all = Buffer.concat(sent);
    const pieces = Array.from({ length: Math.ceil(all.length / size) }, (_, at) =>
      all.subarray(at * size, (at + 1) * size),
    );
    const receiver = received(pieces);
    t.is(receiver.violation, null);
    t.true(receiver.isComplete);
    t.is(receiver.receivedBytes, 1_000);
  }
});

test('flow - names a cell that is lost, duplicated or out of order', async (t) => {
  const [a, b, c, d] = await cells();
  t.regex(received([a, c]).violation ?? '', /cell 2 where 1 belongs: lost/);
  t.regex(received([a, a]).violation ?? '', /cell 0 where 1 belongs: duplicated/);
  t.regex(received([a, b, d, c]).violation ?? '', /cell 3 where 2 belongs/);
});

test('flow - notices every single byte that is missing, doubled or changed', async (t) => {
  const sent = Buffer.concat((await cells()).slice(0, 3));
  const end = (await cells()).slice(3);
  const stamps = new Set([0, 1, 2].flatMap((cell) => range(16, 24).map((at) => cell * 100 + at)));
  for (let at = 0; at < sent.length; at++) {
    const before = sent.subarray(0, at);
    const after = sent.subarray(at + 1);
    const byte = sent[at] ?? 0;
    const isWhole = (chunks: Buffer[]): boolean => {
      const receiver = received([...chunks, ...end]);
      return receiver.violation === null && receiver.isComplete;
    };
    t.false(isWhole([before, after]), `byte ${at} missing`);
    t.false(isWhole([before, Buffer.from([byte, byte]), after]), `byte ${at} twice`);
    // The time of sending is no part of the pattern; the digests of both ends hold it.
    if (!stamps.has(at)) t.false(isWhole([before, Buffer.from([byte ^ 1]), after]), `byte ${at}`);
  }
});

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

test('flow - bytes of another flow, of the other direction and behind the end are violations', async (t) => {
  const sent = await cells();
  const other = await cells({ ...spec, flow: 8 });
  t.regex(received([other[0]]).violation ?? '', /another flow/);
  const down = new FlowReceiver(spec, 'down');
  down.receive(sent[0] ?? Buffer.alloc(0));
  t.regex(down.violation ?? '', /another flow/);
  t.regex(received([...sent, sent[0]]).violation ?? '', /more bytes follow/);
});

test('flow - an end without the last cell is no clean end, and a reset is named', async (t) => {
  for (const [how, end] of [
    ['end', 'truncated'],
    ['reset', 'reset'],
  ] as const) {
    const [near, far] = await pair();
    const flow = new FlowSocket(far, spec, 'down');
    far.on('error', () => undefined);
    const [first] = await cells();
    near.resume();
    near.write(first ?? '');
    if (how === 'end') near.end();
    else near.resetAndDestroy();
    await flow.ended;
    t.is(flow.report().end, end);
  }
});

test('flow - both ends of one that went through agree, and of one that did not the fault is told', async (t) => {
  const [near, far] = await pair();
  const client = new FlowSocket(near, spec, 'up');
  const app = new FlowSocket(far, spec, 'down');
  await Promise.all([client.ended, app.ended]);
  t.deepEqual(faultsOf({ client: client.report(), app: app.report() }), []);
  const short = { ...app.report(), receivedBytes: 900 };
  t.deepEqual(faultsOf({ client: client.report(), app: short }), [
    'flow 7: up: 1000 bytes sent, 900 received',
  ]);
  const other = { ...app.report(), receivedDigest: 'x' };
  t.deepEqual(faultsOf({ client: client.report(), app: other }), ['flow 7: up: digests differ']);
  t.deepEqual(faultsOf({ client: client.report(), app: undefined }), [
    'flow 7 never reached the app',
  ]);
});

test('flow - a greeting says what is wanted, and other bytes are none', (t) => {
  t.like(decodeGreeting(encodeGreeting(spec)), { flow: 7, cellBytes, downBytes: cellBytes });
  t.is(decodeGreeting(Buffer.alloc(24)), undefined);
});
