import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import anyTest, { type TestFn } from 'ava';
import {
  channelPath,
  controlProtocol,
  dataProtocol,
  enrolmentProtocol,
  enrolPath,
  grantHeader,
  tunnelPath,
} from '../../protocol/index.ts';
import { dialWebSocket } from '../../protocol/host/index.ts';
import {
  CheatingClient,
  deviceHello,
  encodeFromDevice,
  identityOf,
} from '../support/cheating-client.ts';
import { Deployment, type Machine } from '../support/deployment.ts';
import { Insider } from '../support/insider.ts';
import { dialRaw, upgradeRequest } from '../support/raw-tls.ts';
import { DataEnd, type Credentials } from '../support/relay-rig.ts';

interface Context {
  deployment: Deployment;
  machine: Machine;
  device: Credentials;
  client: CheatingClient;
  stops: (() => unknown)[];
}
const test = anyTest as TestFn<Context>;

/** The longest any phase before authentication may take, with room for a busy machine. */
const droppedWithinMs = 20_000;

test.before('a deployment with an app that answers', async (t) => {
  t.timeout(90_000);
  const stops: (() => unknown)[] = [];
  t.context.stops = stops;
  const server = createServer((socket) => socket.on('error', () => undefined).pipe(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stops.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  const deployment = await Deployment.start({
    isGuessDear: true,
    apps: [{ name: 'app', target: `tcp://127.0.0.1:${port}` }],
  });
  stops.push(() => deployment.stop());
  const machine = await deployment.enrol();
  const insider = await Insider.of(deployment);
  const device = await insider.credentials('device', (await identityOf(machine)).id);
  const client = await CheatingClient.open(machine);
  stops.push(() => client.close());
  Object.assign(t.context, { deployment, machine, device, client });
});

test.after.always('stop', async (t) => {
  for (const stop of t.context.stops.reverse()) await stop();
});

/** A connection that does `begin` and then nothing more; resolves when the relay has dropped it. */
interface Stalled {
  readonly dropped: Promise<void>;
}

function stallTcp(port: number, bytes: Buffer = Buffer.alloc(0)): Stalled {
  const socket = connect({ port, host: '127.0.0.1' });
  if (bytes.length > 0) socket.write(bytes);
  return { dropped: closing(socket) };
}

function stallTls(context: Context, alpn: string, bytes: string): Stalled {
  const { deployment, device } = context;
  const socket: TLSSocket = connectTls({
    port: deployment.port,
    host: '127.0.0.1',
    ALPNProtocols: [alpn],
    rejectUnauthorized: false,
    key: device.tlsKeyPem,
    cert: device.certificatePem,
  });
  socket.once('secureConnect', () => {
    if (bytes !== '') socket.write(bytes);
  });
  return { dropped: closing(socket) };
}

function closing(socket: Socket): Promise<void> {
  socket.on('error', () => undefined);
  socket.resume();
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

/** The first bytes of a real ClientHello with that ALPN name, captured from Node's own client. */
async function clientHello(alpn: string): Promise<Buffer> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const client = connectTls({ port, host: '127.0.0.1', ALPNProtocols: [alpn] });
  client.on('error', () => undefined);
  const [socket] = (await once(server, 'connection')) as [Socket];
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  client.destroy();
  socket.destroy();
  server.close();
  return bytes;
}

async function stallChannel(context: Context): Promise<Stalled> {
  const ws = await dialWebSocket({
    url: context.deployment.url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity: context.device,
    path: channelPath,
  });
  const end = new DataEnd(ws);
  return { dropped: end.closed.then(() => undefined) };
}

async function stallTunnel({ client }: Context, upTo: 'grant' | 'message 1'): Promise<Stalled> {
  const permit = await client.permit('app');
  const end = await client.present(permit);
  if (upTo === 'message 1') end.send(client.handshake(permit).message1());
  return { dropped: end.closed.then(() => undefined) };
}

const openRequest = `GET ${tunnelPath} HTTP/1.1\r\nhost: x\r\n`;

test('stalls - in every phase they are dropped in time, and meanwhile a tunnel opens at once', async (t) => {
  t.timeout(90_000);
  const { deployment, machine } = t.context;
  const { port } = deployment;
  const [hello, controlHello] = await Promise.all([
    clientHello(dataProtocol),
    clientHello(controlProtocol),
  ]);
  const many = (make: () => Stalled) => Array.from({ length: 25 }, make);
  const phases: Record<string, Stalled[]> = {
    'TCP alone': many(() => stallTcp(port)),
    'one byte of TLS': many(() => stallTcp(port, Buffer.from([22]))),
    'half a ClientHello': many(() => stallTcp(port, hello.subarray(0, hello.length >> 1))),
    'a ClientHello for the data plane': many(() => stallTcp(port, hello)),
    'a ClientHello for the control plane': many(() => stallTcp(port, controlHello)),
    'TLS to the data plane': many(() => stallTls(t.context, dataProtocol, '')),
    'half an upgrade at the data plane': many(() => stallTls(t.context, dataProtocol, openRequest)),
    'TLS to the control plane': many(() => stallTls(t.context, controlProtocol, '')),
    'half an upgrade at the control plane': many(() =>
      stallTls(t.context, controlProtocol, openRequest),
    ),
    'TLS for enrolment': many(() => stallTls(t.context, enrolmentProtocol, '')),
    'half a body for enrolment': many(() =>
      stallTls(
        t.context,
        enrolmentProtocol,
        `POST ${enrolPath} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{`,
      ),
    ),
    'a control channel without hello': await Promise.all(
      Array.from({ length: 5 }, () => stallChannel(t.context)),
    ),
    'a grant without a handshake': [await stallTunnel(t.context, 'grant')],
    'half a handshake': [await stallTunnel(t.context, 'message 1')],
  };
  const startedAtMs = performance.now();
  const left = new Set(Object.keys(phases));
  const dropped = Object.entries(phases).map(async ([phase, stalled]) => {
    await Promise.all(stalled.map((one) => one.dropped));
    left.delete(phase);
  });
  // A legitimate employee is not kept waiting for any of them.
  const { program, port: local } = await deployment.connect(machine, 'app');
  const socket = connect({ port: local, host: '127.0.0.1' });
  socket.write('hello');
  t.is(String((await once(socket, 'data'))[0]), 'hello');
  socket.destroy();
  const connectedAfterMs = performance.now() - startedAtMs;
  await program.stop();
  await Promise.race([Promise.all(dropped), delay(droppedWithinMs, undefined, { ref: false })]);
  t.deepEqual([...left], [], 'these were not dropped in time');
  t.true(connectedAfterMs < droppedWithinMs, `connected after ${Math.round(connectedAfterMs)} ms`);
});

const heads: readonly [what: string, headers: () => readonly string[]][] = [
  ['a header of 1 MB', () => [`${grantHeader}: ${'x'.repeat(1_000_000)}`]],
  ['2,000 headers', () => Array.from({ length: 2_000 }, (_, i) => `x-${i}: y`)],
  ['32,000 protocols', () => [`sec-websocket-protocol: ${'b x,'.repeat(32_000)}`]],
];

for (const [alpn, path] of [
  [dataProtocol, tunnelPath],
  [controlProtocol, channelPath],
] as const) {
  for (const [what, headers] of heads) {
    test(`${alpn} - an upgrade with ${what} is dropped, not answered`, async (t) => {
      const { deployment, device } = t.context;
      const outcome = await dialRaw({
        port: deployment.port,
        alpn,
        request: upgradeRequest(path, headers()),
        key: device.tlsKeyPem,
        cert: device.certificatePem,
      });
      t.notRegex(outcome.answer, /^HTTP\/1\.1 (101|200)/);
    });
  }

  test(`${alpn} - plain HTTP inside TLS finds nothing`, async (t) => {
    const { deployment, device } = t.context;
    const outcome = await dialRaw({
      port: deployment.port,
      alpn,
      request: `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`,
      key: device.tlsKeyPem,
      cert: device.certificatePem,
    });
    t.regex(outcome.answer, /^HTTP\/1\.1 404 /);
  });
}

test('front door - what is not TLS is cut without an answer', async (t) => {
  for (const bytes of ['GET / HTTP/1.1\r\n\r\n', 'SSH-2.0-x\r\n', '\0'.repeat(20_000)]) {
    const socket = connect({ port: t.context.deployment.port, host: '127.0.0.1' });
    let answer = '';
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
    socket.write(bytes);
    await closing(socket);
    t.is(answer, '');
  }
});

test('front door - a ClientHello that never ends is cut at its limit', async (t) => {
  const socket = connect({ port: t.context.deployment.port, host: '127.0.0.1' });
  const closed = closing(socket);
  // A handshake record that announces 16 MB.
  const record = Buffer.concat([
    Buffer.from('1603014000', 'hex'),
    Buffer.from('01ffffff', 'hex'),
    Buffer.alloc(16_380),
  ]);
  for (let i = 0; i < 4; i++) socket.write(record);
  await closed;
  t.pass();
});

async function channel(context: Context): Promise<DataEnd> {
  const ws = await dialWebSocket({
    url: context.deployment.url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity: context.device,
    path: channelPath,
  });
  return new DataEnd(ws);
}

const status = encodeFromDevice({ type: 'status', id: 1 });

/** Messages on a control channel, before and after hello, and how the channel is closed. */
const messages: readonly [
  what: string,
  code: number,
  text: string,
  send: (end: DataEnd) => void,
][] = [
  ['binary', 4400, 'ERR_MESSAGE_MALFORMED', (end) => end.send(Buffer.from('{}'))],
  ['empty', 4400, 'ERR_MESSAGE_MALFORMED', (end) => end.send('')],
  ['that is no JSON', 4400, 'ERR_MESSAGE_MALFORMED', (end) => end.send('{')],
  ['of no known type', 4400, 'ERR_MESSAGE_MALFORMED', (end) => end.send('{"type":"grant_me"}')],
  [
    'with a member too many',
    4400,
    'ERR_MESSAGE_MALFORMED',
    (end) => end.send('{"type":"status","id":1,"as":"root"}'),
  ],
  [
    'with a member twice',
    4400,
    'ERR_MESSAGE_MALFORMED',
    (end) => end.send('{"type":"status","id":1,"id":1}'),
  ],
  [
    'with members in another order',
    4400,
    'ERR_MESSAGE_MALFORMED',
    (end) => end.send('{"id":1,"type":"status"}'),
  ],
  ['with blanks', 4400, 'ERR_MESSAGE_MALFORMED', (end) => end.send('{"type": "status","id":1}')],
  [
    'with __proto__',
    4400,
    'ERR_MESSAGE_MALFORMED',
    (end) => end.send('{"__proto__":{"type":"status"},"id":1}'),
  ],
  ['nested a thousand deep', 4400, 'ERR_MESSAGE_MALFORMED', (end) => end.send('['.repeat(30_000))],
  ['larger than 64 KiB', 1009, '', (end) => end.send('x'.repeat(65_537))],
  [
    'larger than 64 KiB in pieces',
    1009,
    '',
    ({ ws }) => {
      for (let i = 0; i < 5; i++) ws.send('x'.repeat(16_384), { fin: false });
    },
  ],
  [
    'in a flood of empty pieces',
    1008,
    '',
    ({ ws }) => {
      for (let i = 0; i < 20_000; i++) ws.send('', { fin: false });
    },
  ],
];

for (const [what, code, text, send] of messages) {
  test(`control channel - a message ${what}: ${text || code}, before hello and after`, async (t) => {
    const early = await channel(t.context);
    send(early);
    t.deepEqual(await early.closed, { code, text });
    t.deepEqual(early.texts, []);
    const late = await channel(t.context);
    late.send(encodeFromDevice(deviceHello(t.context.device)));
    await late.until(() => late.texts.length > 0);
    send(late);
    t.deepEqual(await late.closed, { code, text });
  });
}

test('control channel - a request before hello, and a second hello: ERR_MESSAGE_UNEXPECTED', async (t) => {
  const early = await channel(t.context);
  early.send(status);
  t.is(await early.closeCode(), 'ERR_MESSAGE_UNEXPECTED');
  t.deepEqual(early.texts, []);
  const late = await channel(t.context);
  const hello = encodeFromDevice(deviceHello(t.context.device));
  late.send(hello);
  late.send(hello);
  t.is(await late.closeCode(), 'ERR_MESSAGE_UNEXPECTED');
});

test('control channel - versions that share nothing: ERR_HANDSHAKE_VERSION', async (t) => {
  const end = await channel(t.context);
  end.send(encodeFromDevice({ ...deviceHello(t.context.device), versions: { min: 7, max: 9 } }));
  t.deepEqual(await end.closed, { code: 4426, text: 'ERR_HANDSHAKE_VERSION' });
});

test('control channel - a flood of messages: ERR_LIMIT_RATE, for that channel alone', async (t) => {
  const end = await channel(t.context);
  end.send(encodeFromDevice(deviceHello(t.context.device)));
  for (let id = 1; id <= 2_000; id++) end.send(encodeFromDevice({ type: 'status', id }));
  t.is(await end.closeCode(), 'ERR_LIMIT_RATE');
  t.is((await t.context.client.request({ type: 'status' })).type, 'status');
});

test('control channel - compression is not taken up', async (t) => {
  const { deployment, device } = t.context;
  const outcome = await dialRaw({
    port: deployment.port,
    alpn: controlProtocol,
    request: upgradeRequest(channelPath, ['sec-websocket-extensions: permessage-deflate']),
    key: device.tlsKeyPem,
    cert: device.certificatePem,
  });
  t.regex(outcome.answer, /^HTTP\/1\.1 101 /);
  t.notRegex(outcome.answer, /sec-websocket-extensions/i);
});

test('enrolment - a body above its limit: ERR_MESSAGE_TOO_LARGE', async (t) => {
  for (const length of [16_385, 200_000]) {
    const outcome = await dialRaw({
      port: t.context.deployment.port,
      alpn: enrolmentProtocol,
      request: `POST ${enrolPath} HTTP/1.1\r\nhost: x\r\ncontent-length: ${length}\r\n\r\n${'x'.repeat(length)}`,
    });
    t.regex(outcome.answer, /^HTTP\/1\.1 413 /);
  }
});
