import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import {
  createServer as createTcpServer,
  type AddressInfo,
  type Server,
  type Socket,
} from 'node:net';
import { join } from 'node:path';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls, createServer as createTlsServer, type TLSSocket } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import type { WebSocket } from 'ws';
import { ZtnaError } from '../../../protocol/errors.ts';
import { newId } from '../../../protocol/id.ts';
import { aheadProtocol, controlProtocol, dataProtocol } from '../../../protocol/messages/data.ts';
import { dialWebSocket, type DialOptions } from '../../../protocol/host/dial.ts';
import { secureServerOptions } from '../../../protocol/host/tls.ts';
import { startTestServer, type TestServerOptions } from '../../support/control-server.ts';
import { TestCa, TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const device = pki.dialIdentity(`ztna://device/${newId('device')}`);

async function serve(
  t: ExecutionContext,
  options: Partial<TestServerOptions> = {},
): Promise<string> {
  const server = await startTestServer({ pki, ...options });
  t.teardown(() => server.stop());
  return server.url;
}

async function listening(t: ExecutionContext, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function dial(url: string, changes: Partial<DialOptions> = {}) {
  return dialWebSocket({
    url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity: device,
    path: '/v1/channel',
    ...changes,
  });
}

async function refused(t: ExecutionContext, dialling: Promise<WebSocket>): Promise<ZtnaError> {
  return t.throwsAsync<ZtnaError>(dialling, { instanceOf: ZtnaError });
}

test('dialWebSocket - opens over mutual TLS 1.3 and loses no message that came with the upgrade', async (t) => {
  const url = await serve(t, {
    onSocket: (ws) => {
      ws.send('at once');
    },
  });
  const ws = await dial(url);
  t.teardown(() => {
    ws.terminate();
  });
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setTimeout(resolve, 20)); // time in which a lost message would be lost
  const [data] = (await once(ws, 'message')) as [Buffer];
  t.is(data.toString(), 'at once');
});

test('dialWebSocket - sends frames with a zero mask', async (t) => {
  const received: Buffer[] = [];
  const server = await startTestServer({
    pki,
    onSocket: (ws) =>
      ws.once('message', () => {
        ws.send('seen');
      }),
  });
  t.teardown(() => server.stop());
  server.server.on('secureConnection', (socket: TLSSocket) => {
    socket.on('data', (chunk: Buffer) => received.push(chunk));
  });
  const ws = await dial(server.url);
  t.teardown(() => {
    ws.terminate();
  });
  ws.send('payload in the clear');
  await once(ws, 'message');
  const wire = Buffer.concat(received);
  const frame = wire.subarray(wire.indexOf('\r\n\r\n') + 4);
  t.deepEqual(frame.subarray(0, 6), Buffer.from([0x81, 0x80 | 20, 0, 0, 0, 0]));
  t.is(frame.subarray(6, 26).toString(), 'payload in the clear');
});

test('dialWebSocket - sends the headers it was given, to the path it was given', async (t) => {
  const server = await startTestServer({ pki, alpn: dataProtocol, certificate: dataPlane() });
  t.teardown(() => server.stop());
  const upgrade = once(server.server, 'upgrade') as Promise<[IncomingMessage]>;
  const ws = await dial(server.url, {
    alpn: dataProtocol,
    serverRole: 'data-plane',
    ...withPath(),
  });
  t.teardown(() => {
    ws.terminate();
  });
  const [request] = await upgrade;
  t.is(request.url, '/v1/tunnel');
  t.is(request.headers['ztna-grant'], 'grant.x.y.z');
});

function withPath() {
  return { path: '/v1/tunnel', headers: { 'ztna-grant': 'grant.x.y.z' } };
}

function dataPlane() {
  return pki.ca.issue({ uris: [`ztna://data-plane/${newId('relay')}`], uses: ['serverAuth'] });
}

test('dialWebSocket - reaches a server on a unix socket under the name of its URL', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'ztna-'));
  t.teardown(() => rm(directory, { recursive: true }));
  const socketPath = join(directory, 'control.sock');
  await serve(t, { socketPath });
  const ws = await dial('https://localhost', { socketPath });
  t.is(ws.readyState, ws.OPEN);
  ws.terminate();
  const other = await refused(t, dial('https://elsewhere.example', { socketPath }));
  t.is(other.reason, 'certificate_name');
});

test('dialWebSocket - refuses a peer of another role', async (t) => {
  const url = await serve(t, { certificate: dataPlane() });
  t.is((await refused(t, dial(url))).code, 'ERR_IDENTITY_ROLE');
});

test('dialWebSocket - refuses a peer whose certificate states no role', async (t) => {
  const url = await serve(t, { certificate: pki.ca.issue({ uses: ['serverAuth'] }) });
  t.is((await refused(t, dial(url))).code, 'ERR_IDENTITY_ROLE');
});

test('dialWebSocket - refuses the right role under another host name', async (t) => {
  const uris = ['ztna://control-plane/cp'];
  const url = await serve(t, { certificate: pki.ca.issue({ uris, hosts: ['other.example'] }) });
  const error = await refused(t, dial(url));
  t.is(error.code, 'ERR_RELAY_UNREACHABLE');
  t.is(error.reason, 'certificate_name');
});

test('dialWebSocket - refuses a certificate that is only for clients', async (t) => {
  const uris = ['ztna://control-plane/cp'];
  const url = await serve(t, { certificate: pki.ca.issue({ uris, uses: ['clientAuth'] }) });
  t.is((await refused(t, dial(url))).reason, 'certificate_purpose');
});

test('dialWebSocket - names an expired certificate and the clock', async (t) => {
  const notAfter = new Date(Date.now() - 3_600_000);
  const certificate = pki.ca.issue({ uris: ['ztna://control-plane/cp'], notAfter });
  const error = await refused(t, dial(await serve(t, { certificate })));
  t.is(error.reason, 'certificate_dates');
  t.regex(error.hint ?? '', /clock/);
});

test('dialWebSocket - refuses a peer that did not take up the protocol', async (t) => {
  const certificate = pki.ca.issue({ uris: ['ztna://control-plane/cp'] });
  const silent = createTlsServer({ key: certificate.keyPem, cert: certificate.certificatePem });
  const error = await refused(t, dial(await listening(t, silent)));
  t.is(error.reason, 'protocol_missing');
  const other = await refused(t, dial(await serve(t, { alpn: 'http/1.1' })));
  t.is(other.reason, 'protocol_missing');
});

test('dialWebSocket - never reports success when the server refuses our certificate', async (t) => {
  const url = await serve(t);
  const stranger = new TestCa('other').issue({ uris: [`ztna://device/${newId('device')}`] });
  const identity = { ...device, ...stranger, tlsKeyPem: stranger.keyPem };
  const error = await refused(t, dial(url, { identity }));
  t.true(['certificate_refused', 'closed_unanswered'].includes(error.reason ?? ''), error.reason);
});

test('dialWebSocket - throws the code with which the upgrade was refused', async (t) => {
  const url = await serve(t, {
    refusal: new ZtnaError('ERR_GRANT_USED', { message: 'for the log' }),
  });
  const error = await refused(t, dial(url));
  t.is(error.code, 'ERR_GRANT_USED');
  t.notRegex(error.message, /for the log/);
});

test('dialWebSocket - says that nothing listens', async (t) => {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  const error = await refused(t, dial(`https://127.0.0.1:${port}`));
  t.is(error.code, 'ERR_RELAY_UNREACHABLE');
  t.is(error.reason, 'connection_refused');
  t.is(error.hop, 'relay');
});

test('dialWebSocket - says that a name is unknown', async (t) => {
  const error = await refused(t, dial('https://no-such-host.invalid'));
  t.is(error.reason, 'name_unknown');
  t.is(error.hop, 'network');
});

test('dialWebSocket - an end that does not know the newer protocol is dialled by the older name', async (t) => {
  const names = { alpn: aheadProtocol, olderAlpn: controlProtocol };
  for (const alpn of [aheadProtocol, controlProtocol]) {
    const server = await startTestServer({ pki, alpn });
    t.teardown(() => server.stop());
    const secured = once(server.server, 'secureConnection') as Promise<[TLSSocket]>;
    (await dial(server.url, names)).terminate();
    const [socket] = await secured;
    t.is(socket.alpnProtocol, alpn);
  }
});

test('dialWebSocket - waits for TLS as long as it has patience, from when the connection was taken', async (t) => {
  const server = await startTestServer({ pki });
  t.teardown(() => server.stop());
  const taken = Promise.withResolvers<Socket>();
  const queue = createTcpServer({ pauseOnConnect: true }, taken.resolve);
  const url = await listening(t, queue);
  const timeoutMs = 500;
  const impatient = refused(t, dial(url, { timeoutMs }));
  (await taken.promise).once('close', () => undefined).resume();
  t.is((await impatient).reason, 'timed_out');
  const second = once(queue, 'connection') as Promise<[Socket]>;
  const patient = dial(url, { timeoutMs, patienceMs: 60_000 });
  const [socket] = await second;
  await delay(timeoutMs * 2); // the time that is not enough
  server.server.emit('connection', socket);
  (await patient).terminate();
});

test('dialWebSocket - gives up on a server that never speaks', async (t) => {
  const url = await listening(
    t,
    createTcpServer(() => undefined),
  );
  const error = await refused(t, dial(url, { timeoutMs: 100 }));
  t.is(error.reason, 'timed_out');
});

test('dialWebSocket - gives up on a server that ends TLS and never answers the upgrade', async (t) => {
  const certificate = pki.ca.issue({ uris: ['ztna://control-plane/cp'] });
  const server = createTlsServer(
    secureServerOptions({ ...certificate, clientAuthorities: null, alpn: [controlProtocol] }),
  );
  const error = await refused(t, dial(await listening(t, server), { timeoutMs: 300 }));
  t.is(error.reason, 'timed_out');
});

test('dialWebSocket - refuses a server below TLS 1.3', async (t) => {
  const certificate = pki.ca.issue({ uris: ['ztna://control-plane/cp'] });
  const server = createTlsServer({
    key: certificate.keyPem,
    cert: certificate.certificatePem,
    maxVersion: 'TLSv1.2',
    ALPNProtocols: [controlProtocol],
  });
  const error = await refused(t, dial(await listening(t, server)));
  t.is(error.reason, 'tls_failed');
});

test('dialWebSocket - ends at once when the signal aborts', async (t) => {
  const url = await listening(
    t,
    createTcpServer(() => undefined),
  );
  const controller = new AbortController();
  const dialling = dial(url, { signal: controller.signal });
  setImmediate(() => {
    controller.abort();
  });
  t.is((await refused(t, dialling)).reason, 'aborted');
  t.is((await refused(t, dial(url, { signal: AbortSignal.abort() }))).reason, 'aborted');
});

test('dialWebSocket - closes on a message above the cap', async (t) => {
  const url = await serve(t, {
    onSocket: (ws) => {
      ws.send('x'.repeat(65_537));
    },
  });
  const ws = await dial(url);
  const code = await new Promise<number>((resolve) => ws.once('close', resolve));
  t.is(code, 1006);
});

test('secureServerOptions - gives no session that could be resumed', async (t) => {
  const server = await startTestServer({ pki });
  t.teardown(() => server.stop());
  const port = (server.server.address() as AddressInfo).port;
  const options = {
    port,
    host: '127.0.0.1',
    ca: [pki.ca.certificatePem],
    key: device.tlsKeyPem,
    cert: device.certificatePem,
    ALPNProtocols: [controlProtocol],
  };
  const first = connectTls(options);
  t.teardown(() => first.destroy());
  const sessions: Buffer[] = [];
  first.on('session', (session: Buffer) => sessions.push(session));
  await once(first, 'secureConnect');
  first.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n');
  first.resume();
  await new Promise((resolve) => setTimeout(resolve, 50)); // tickets, if any, follow the handshake
  for (const session of sessions) {
    const again = connectTls({ ...options, session });
    t.teardown(() => again.destroy());
    await once(again, 'secureConnect');
    t.false(again.isSessionReused());
  }
  t.is(first.getProtocol(), 'TLSv1.3');
});
