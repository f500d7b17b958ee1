import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { maxStreamsPerTunnel } from '../../connector/limits.ts';
import { FrameType, grantHeader } from '../../protocol/index.ts';
import { encodeCount, encodeFrame, encodeReset } from '../../protocol/frame.ts';
import { CheatingClient, type CheatTunnel } from '../support/cheating-client.ts';
import { Deployment } from '../support/deployment.ts';
import type { DataEnd } from '../support/relay-rig.ts';

interface App {
  readonly server: Server;
  readonly port: number;
  readonly sockets: Set<Socket>;
  dials: number;
  cleanEnds: number;
}

interface Context {
  deployment: Deployment;
  client: CheatingClient;
  echo: App;
  deaf: App;
  stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

async function startApp(serve: (socket: Socket) => void): Promise<App> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    app.dials++;
    app.sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('end', () => app.cleanEnds++);
    socket.once('close', () => app.sockets.delete(socket));
    serve(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const app: App = { server, port, sockets: new Set(), dials: 0, cleanEnds: 0 };
  return app;
}

test.before('an app that echoes and one that never reads', async (t) => {
  t.timeout(90_000);
  const stops: (() => unknown)[] = [];
  t.context.stops = stops;
  const echo = await startApp((socket) => socket.pipe(socket));
  const deaf = await startApp((socket) => socket.pause());
  stops.push(() => {
    for (const app of [echo, deaf]) {
      for (const socket of app.sockets) socket.destroy();
      app.server.close();
    }
  });
  const deployment = await Deployment.start({
    apps: [
      { name: 'echo', target: `tcp://127.0.0.1:${echo.port}`, health: 'off' },
      { name: 'deaf', target: `tcp://127.0.0.1:${deaf.port}`, health: 'off' },
    ],
    // What breaks a path alone only detaches the tunnel: how soon the app hears of it is the hold's to say.
    relayConfig: { verification: '{ holdFor: 1s }' },
  });
  stops.push(() => deployment.stop());
  const client = await CheatingClient.open(await deployment.enrol());
  stops.push(() => client.close());
  Object.assign(t.context, { deployment, client, echo, deaf });
});

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

const open = (stream: number, number: number, payload = 'x') =>
  encodeFrame(FrameType.Open, stream, number, Buffer.from(payload));
const data = (stream: number, number: number, payload = 'x') =>
  encodeFrame(FrameType.Data, stream, number, Buffer.from(payload));
const fin = (stream: number, number: number) => encodeFrame(FrameType.Fin, stream, number);
const reset = (stream: number, number: number) =>
  encodeFrame(FrameType.Reset, stream, number, encodeReset('reset'));
const credit = (stream: number, limit = 1) =>
  encodeFrame(FrameType.Credit, stream, 0, encodeCount(limit));
const probe = encodeFrame(FrameType.Probe, 0, 0, Buffer.alloc(8));
const raw = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');

const malformed = 'ERR_FRAME_MALFORMED';
const unexpected = 'ERR_FRAME_UNEXPECTED';

/** Records that a proved client sends as its first, frame by frame, and the code with which the tunnel ends. */
const violations: readonly [what: string, code: string, record: readonly Buffer[]][] = [
  ['an empty record', malformed, []],
  ['a header cut short', malformed, [raw('01 000000 00000001 00000000000001')]],
  ['a payload cut short', malformed, [raw('01 000002 00000001 0000000000000001 61')]],
  ['frame type 0', malformed, [raw('00 000000 00000000 0000000000000000')]],
  ['frame type 12', malformed, [raw('0c 000000 00000000 0000000000000000')]],
  ['frame type 255', malformed, [raw('ff 000000 00000000 0000000000000000')]],
  ['OPEN of stream 0', malformed, [raw('01 000000 00000000 0000000000000001')]],
  ['OPEN without a number', malformed, [raw('01 000000 00000001 0000000000000000')]],
  ['a number above 2^53', malformed, [raw('01 000000 00000001 0020000000000000')]],
  ['DATA of nothing', malformed, [open(1, 1), raw('02 000000 00000001 0000000000000002')]],
  ['FIN with a payload', malformed, [open(1, 1), raw('03 000001 00000001 0000000000000002 00')]],
  [
    'RESET with an unknown code',
    malformed,
    [open(1, 1), raw('04 000002 00000001 0000000000000002 ffff')],
  ],
  [
    'CREDIT above 2^53',
    malformed,
    [open(1, 1), raw('06 000008 00000001 0000000000000000 ffffffffffffffff')],
  ],
  [
    'CREDIT with a number',
    malformed,
    [open(1, 1), raw('06 000008 00000001 0000000000000002 0000000000000001')],
  ],
  [
    'CLOSE with words of its own',
    malformed,
    [encodeFrame(FrameType.Close, 0, 0, Buffer.from('bye'))],
  ],
  ['PROBE of 7 bytes', malformed, [raw('0a 000007 00000000 0000000000000000 00000000000000')]],
  ['ACCEPT by a client', unexpected, [encodeFrame(FrameType.Accept, 0, 0)]],
  ['RESUME', unexpected, [encodeFrame(FrameType.Resume, 0, 0, Buffer.alloc(32))]],
  ['RESUME without a proof', malformed, [encodeFrame(FrameType.Resume, 0, 0)]],
  ['RESUMED', unexpected, [encodeFrame(FrameType.Resumed, 0, 0, Buffer.alloc(8))]],
  ['OPEN of an even stream', unexpected, [open(2, 1)]],
  ['OPEN of the same stream twice', unexpected, [open(1, 1), open(1, 2)]],
  ['OPEN of a lower stream', unexpected, [open(3, 1), open(1, 2)]],
  ['a first number of 2', unexpected, [open(1, 2)]],
  ['a number left out', unexpected, [open(1, 1), data(1, 3)]],
  ['a number repeated', unexpected, [open(1, 1), data(1, 1)]],
  ['DATA before OPEN', unexpected, [data(1, 1)]],
  ['FIN before OPEN', unexpected, [fin(1, 1)]],
  ['RESET before OPEN', unexpected, [reset(1, 1)]],
  ['CREDIT before OPEN', unexpected, [credit(1)]],
  ['DATA behind FIN', unexpected, [open(1, 1), fin(1, 2), data(1, 3)]],
  ['FIN twice', unexpected, [open(1, 1), fin(1, 2), fin(1, 3)]],
  ['DATA behind RESET', unexpected, [open(1, 1), reset(1, 2), data(1, 3)]],
  ['ACK of what was never sent', unexpected, [encodeFrame(FrameType.Ack, 0, 1_000_000)]],
  ['an answer to no PROBE', unexpected, [encodeFrame(FrameType.ProbeReply, 0, 0, Buffer.alloc(8))]],
  ['two PROBEs at once', unexpected, [probe, probe]],
];

for (const [what, code, record] of violations) {
  test.serial(`frames - ${what}: ${code} ends the tunnel`, async (t) => {
    const tunnel = await t.context.client.mustOpen('echo');
    tunnel.send(...record);
    t.is(await tunnel.closeCode(), code);
    const last = tunnel.frames.at(-1);
    t.is(last?.type, FrameType.Close);
    t.is(last?.payload.toString('latin1').split('\0')[0], code);
    await assertAppReset(t, t.context.echo);
  });
}

/** Every connection of the app goes, also one that was only just being made. */
async function assertAppReset(t: ExecutionContext<Context>, app: App): Promise<void> {
  while (app.sockets.size > 0) {
    // One that is not read does not notice.
    for (const socket of app.sockets) socket.resume();
    await Promise.all(
      [...app.sockets].map((socket) => new Promise((resolve) => socket.once('close', resolve))),
    );
  }
  t.is(app.sockets.size, 0);
}

test.serial('frames - violations never looked like a finished connection to the app', (t) => {
  // Three records above said FIN before they broke a rule.
  t.true(t.context.echo.cleanEnds <= 3);
});

test.serial(
  'credit - a client that ignores it is cut off, and the app’s socket is reset',
  async (t) => {
    const { client, deaf } = t.context;
    const tunnel = await client.mustOpen('deaf');
    const chunk = 'x'.repeat(60_000);
    let number = 0;
    tunnel.send(open(1, ++number, chunk));
    // The app and the sockets before it take some megabytes; then every further byte is one too many.
    for (let sent = 0; sent < 64 && tunnel.end.ws.readyState === tunnel.end.ws.OPEN; sent++) {
      for (let i = 0; i < 16; i++) tunnel.send(data(1, ++number, chunk));
      await new Promise((resolve) => setImmediate(resolve));
    }
    t.is(await tunnel.closeCode(), 'ERR_FRAME_CREDIT_OVERRUN');
    await assertAppReset(t, deaf);
    t.is(deaf.cleanEnds, 0);
  },
);

test.serial('credit - one that wraps around or falls changes nothing', async (t) => {
  const tunnel = await t.context.client.mustOpen('echo');
  tunnel.send(open(1, 1, 'a'), credit(1, 0), credit(1, Number.MAX_SAFE_INTEGER), credit(1, 0));
  tunnel.send(data(1, 2, 'b'));
  await tunnel.until(() => echoed(tunnel) === 'ab');
  t.is(echoed(tunnel), 'ab');
  tunnel.end.ws.close();
});

function echoed(tunnel: CheatTunnel): string {
  const frames = tunnel.frames.filter(({ type }) => type === FrameType.Data);
  return Buffer.concat(frames.map(({ payload }) => payload)).toString();
}

test.serial(
  'streams - a storm of OPEN and RESET ends with ERR_LIMIT_RATE; others go on',
  async (t) => {
    const { client, echo } = t.context;
    const other = await client.mustOpen('echo');
    const tunnel = await client.mustOpen('echo');
    const dialsBefore = echo.dials;
    let number = 0;
    for (let stream = 1; stream < 20_000; stream += 20) {
      const frames: Buffer[] = [];
      for (let i = stream; i < stream + 20; i += 2)
        frames.push(open(i, ++number), reset(i, ++number));
      tunnel.send(...frames);
    }
    t.is(await tunnel.closeCode(), 'ERR_LIMIT_RATE');
    other.send(open(1, 1, 'still here'));
    await other.until(() => echoed(other) === 'still here');
    t.true(echo.dials - dialsBefore < 500, `${echo.dials - dialsBefore} dials`);
    other.end.ws.close();
  },
);

test.serial('streams - one more than the limit is refused alone', async (t) => {
  const tunnel = await t.context.client.mustOpen('echo');
  const frames = Array.from({ length: maxStreamsPerTunnel + 1 }, (_, i) =>
    open(2 * i + 1, i + 1, 'x'),
  );
  tunnel.isTelling = true; // a thousand answers are more than a new path is given at once
  for (let i = 0; i < frames.length; i += 100) tunnel.send(...frames.slice(i, i + 100));
  const isReset = () => tunnel.frames.some(({ type }) => type === FrameType.Reset);
  await tunnel.until(isReset);
  const resets = tunnel.frames.filter(({ type }) => type === FrameType.Reset);
  t.deepEqual(
    resets.map(({ stream, payload }) => [stream, payload.equals(encodeReset('limit'))]),
    [[2 * maxStreamsPerTunnel + 1, true]],
  );
  tunnel.send(data(1, maxStreamsPerTunnel + 2, 'y'));
  await tunnel.until(() =>
    tunnel.frames.some(({ stream, payload }) => stream === 1 && payload.includes('y')),
  );
  tunnel.end.ws.close();
  await assertAppReset(t, t.context.echo);
});

const tampered: readonly [what: string, record: (good: Buffer) => Buffer][] = [
  ['empty', () => Buffer.alloc(0)],
  ['one byte', () => Buffer.alloc(1)],
  ['noise', (good) => Buffer.alloc(good.length)],
];

for (const [what, change] of tampered) {
  test.serial(`records - ${what}: ERR_RECORD_TAMPERED`, async (t) => {
    const tunnel = await t.context.client.mustOpen('echo');
    const dialsBefore = t.context.echo.dials;
    tunnel.sendSealed(change(tunnel.seal(open(1, 1))));
    t.is(await tunnel.closeCode(), 'ERR_RECORD_TAMPERED');
    t.is(t.context.echo.dials, dialsBefore);
  });
}

test.serial('records - the same one twice: ERR_RECORD_TAMPERED', async (t) => {
  const tunnel = await t.context.client.mustOpen('echo');
  const record = tunnel.seal(open(1, 1));
  tunnel.sendSealed(record);
  tunnel.sendSealed(record);
  t.is(await tunnel.closeCode(), 'ERR_RECORD_TAMPERED');
});

test.serial('hop - text in a tunnel: ERR_MESSAGE_UNEXPECTED', async (t) => {
  const tunnel = await t.context.client.mustOpen('echo');
  tunnel.end.send('{"type":"assigned"}');
  t.is(await tunnel.closeCode(), 'ERR_MESSAGE_UNEXPECTED');
});

/** What breaks the rules of WebSockets themselves ends with a code of theirs, which every peer takes for a lost path. */
const webSocketViolations: readonly [what: string, code: number, act: (end: DataEnd) => void][] = [
  ['a message larger than any record', 1009, ({ ws }) => ws.send(Buffer.alloc(65_536))],
  [
    'a message in more than 16 pieces',
    1008,
    ({ ws }) => {
      for (let i = 0; i < 64; i++) ws.send(Buffer.alloc(1), { fin: false });
    },
  ],
  [
    'a flood of empty pieces',
    1008,
    ({ ws }) => {
      for (let i = 0; i < 5_000; i++) ws.send(Buffer.alloc(0), { fin: false });
    },
  ],
  ['a compressed message', 1002, ({ ws }) => rawSocketOf(ws).write(raw('c2 80 00000000'))],
  ['a frame without a mask', 1002, ({ ws }) => rawSocketOf(ws).write(raw('82 01 61'))],
  ['an unknown opcode', 1002, ({ ws }) => rawSocketOf(ws).write(raw('83 80 00000000'))],
];

function rawSocketOf(ws: DataEnd['ws']): Socket {
  return (ws as unknown as { readonly _socket: Socket })._socket;
}

for (const [what, code, act] of webSocketViolations) {
  test.serial(`WebSocket - ${what}: ${code}, at the tunnel and before it opened`, async (t) => {
    const { client, echo } = t.context;
    const tunnel = await client.mustOpen('echo');
    tunnel.send(open(1, 1));
    await tunnel.until(() => echoed(tunnel) === 'x');
    act(tunnel.end);
    t.is((await tunnel.end.closed).code, code);
    await assertAppReset(t, echo);
    const { grant } = await client.permit('echo');
    const early = await client.present({ grant });
    act(early);
    t.is((await early.closed).code, code);
  });
}

test.serial('WebSocket - compression is not taken up', async (t) => {
  const { client } = t.context;
  const { grant } = await client.permit('echo');
  const end = await client.dial({
    [grantHeader]: grant,
    'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits',
  });
  t.is(end.ws.extensions, '');
  end.ws.close();
});
