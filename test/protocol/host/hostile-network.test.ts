import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Server } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { errorRow, ZtnaError } from '../../../protocol/errors.ts';
import { newId } from '../../../protocol/id.ts';
import { controlProtocol } from '../../../protocol/messages/data.ts';
import { dialWebSocket } from '../../../protocol/host/dial.ts';
import { fetchBundle } from '../../../protocol/host/enrolment.ts';
import { redialForever } from '../../../protocol/host/redial.ts';
import { findPortal } from '../../../protocol/host/tls-diagnosis.ts';
import { startTestServer } from '../../support/control-server.ts';
import { InspectingProxy } from '../../support/inspecting-proxy.ts';
import { TestCa, TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const device = pki.dialIdentity(`ztna://device/${newId('device')}`);
const inspection = new TestCa('Evil\u001b[2J Inspection Inc');

function dial(url: string) {
  return dialWebSocket({
    url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity: device,
    path: '/v1/channel',
    headers: { 'ztna-grant': 'a-secret-of-ours' },
  });
}

async function refused(t: ExecutionContext, dialling: Promise<unknown>): Promise<ZtnaError> {
  return t.throwsAsync<ZtnaError>(dialling, { instanceOf: ZtnaError });
}

async function inspect(
  t: ExecutionContext,
  ...[certificate, options]: Parameters<typeof InspectingProxy.start>
): Promise<InspectingProxy> {
  const proxy = await InspectingProxy.start(certificate, options);
  t.teardown(() => proxy.stop());
  return proxy;
}

for (const [name, options] of [
  ['takes up our protocol', { ALPNProtocols: [controlProtocol] }],
  ['ignores our protocol', {}],
  ['refuses our protocol', { ALPNProtocols: ['h2', 'http/1.1'] }],
  ['knows nothing above TLS 1.2', { maxVersion: 'TLSv1.2' }],
] as const) {
  test(`dialWebSocket - TLS inspection that ${name} is told with its certificate, and sent nothing`, async (t) => {
    const certificate = inspection.issue();
    const { fingerprint256 } = new X509Certificate(certificate.certificatePem);
    const proxy = await inspect(t, certificate, options);
    const error = await refused(t, dial(proxy.url));
    t.is(error.code, 'ERR_NETWORK_INTERCEPTED');
    t.is(error.hop, 'network');
    t.is(error.reason, 'certificate_stranger');
    t.is(errorRow(error.code).retry, 'backoff');
    t.true(error.message.includes(`subject “CN=leaf”`), error.message);
    t.true(error.message.includes('issuer “CN=Evil\\1B[2J Inspection Inc”'), error.message);
    t.true(error.message.includes(`SHA-256 ${fingerprint256}`), error.message);
    const own = new X509Certificate(pki.ca.certificatePem).fingerprint256;
    t.true(error.message.includes(`the relay’s own CA (SHA-256 ${own})`), error.message);
    t.true(error.hint?.includes(new URL(proxy.url).host), error.hint);
    t.deepEqual(proxy.received, []);
  });
}

test('dialWebSocket - a relay of another deployment is told apart from inspection', async (t) => {
  const other = new TestPki();
  const server = await startTestServer({ pki: other });
  t.teardown(() => server.stop());
  const error = await refused(t, dial(server.url));
  t.is(error.code, 'ERR_NETWORK_INTERCEPTED');
  t.is(error.hop, 'relay');
  t.is(error.reason, 'certificate_other_deployment');
  t.regex(error.message, /another deployment/);
  t.regex(error.hint ?? '', /enrol this machine again/);
});

test('fetchBundle - names who answers in the relay’s place before there is a CA to pin', async (t) => {
  const proxy = await inspect(t, inspection.issue());
  const error = await refused(t, fetchBundle(proxy.url, pki.rootId));
  t.is(error.code, 'ERR_NETWORK_INTERCEPTED');
  t.regex(error.message, /Inspection Inc.*SHA-256.*only the relay that the code names/);
  t.deepEqual(proxy.received, []);
});

test('fetchBundle - a relay of another root is another deployment', async (t) => {
  const certificate = inspection.issue({ uris: ['ztna://control-plane/cp'] });
  const server = await inspect(t, certificate, { ALPNProtocols: ['h2'] });
  const error = await refused(t, fetchBundle(server.url, pki.rootId));
  t.is(error.reason, 'certificate_other_deployment');
});

async function listening(t: ExecutionContext, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What the network shows instead of everything else until somebody signs in. */
function portal(
  status: number,
  headers: Record<string, string>,
  onRequest?: (text: string) => void,
) {
  return createHttpServer((request, response) => {
    onRequest?.(`${request.method} ${request.url} ${JSON.stringify(request.headers)}`);
    response.writeHead(status, headers).end('<html>sign in</html>');
  });
}

test('dialWebSocket - a captive portal is named with where it points, and told nothing but the host', async (t) => {
  const requests: string[] = [];
  const url = await listening(
    t,
    portal(302, { location: 'http://portal.example/login?x=%1b' }, (text) => requests.push(text)),
  );
  const error = await refused(t, dial(url));
  t.is(error.code, 'ERR_NETWORK_CAPTIVE_PORTAL');
  t.is(error.hop, 'network');
  t.is(error.reason, 'captive_portal');
  t.is(errorRow(error.code).retry, 'backoff');
  t.regex(error.message, /“http:\/\/portal\.example\/login\?x=%1b”/);
  t.regex(error.hint ?? '', /open a browser/);
  t.is(requests.length, 1);
  t.notRegex(requests.join(), /secret|ztna/);
});

for (const [name, status, headers, isPortal] of [
  ['shows a page', 200, { 'content-type': 'text/html' }, true],
  ['asks for a sign-in', 511, {}, true],
  ['redirects elsewhere', 307, { location: 'https://portal.example/' }, true],
  ['redirects to itself', 301, { location: 'https://127.0.0.1/' }, false],
  ['redirects to a path of its own', 301, { location: '/other' }, false],
  ['has no such page', 404, { 'content-type': 'text/html' }, false],
  ['is some other service', 200, { 'content-type': 'application/json' }, false],
] as const) {
  test(`findPortal - what ${name} is ${isPortal ? 'a portal' : 'none'}`, async (t) => {
    const url = await listening(t, portal(status, headers));
    t.is((await findPortal({ url }))?.code, isPortal ? 'ERR_NETWORK_CAPTIVE_PORTAL' : undefined);
  });
}

/** An address of this machine that no other test uses, since a portal is looked for at port 80 alone. */
const ownAddress = `127.80.${(process.pid >> 8) & 255}.${process.pid & 255 || 1}`;

test('dialWebSocket - a portal to which names lead is told by where its port 80 points', async (t) => {
  const web = portal(302, { location: 'http://portal.example/welcome' });
  web.listen(80, ownAddress);
  try {
    await once(web, 'listening');
  } catch (error) {
    t.log(`left out: ${String(error)}`);
    t.pass();
    return;
  }
  t.teardown(() => web.close());
  const hosts = ['portal.example'];
  const own = new TestCa('Hotel').issue({ hosts });
  const proxy = await InspectingProxy.start(own, { ALPNProtocols: ['http/1.1'] }, ownAddress);
  t.teardown(() => proxy.stop());
  const error = await refused(t, dial(proxy.url));
  t.is(error.code, 'ERR_NETWORK_CAPTIVE_PORTAL');
  t.regex(error.message, /“http:\/\/portal\.example\/welcome”/);
  t.deepEqual(proxy.received, []);
});

test('dialWebSocket - what speaks neither TLS nor HTTP is no portal', async (t) => {
  const url = await listening(
    t,
    createTcpServer((socket) => {
      socket.on('error', () => undefined);
      socket.write('220 mail.example ESMTP\r\n');
    }),
  );
  const error = await refused(t, dial(url));
  t.is(error.code, 'ERR_RELAY_UNREACHABLE');
  t.is(error.reason, 'tls_failed');
});

test('redialForever - comes back by itself when the portal lets the machine through', async (t) => {
  const gate = createTcpServer();
  const url = await listening(t, gate);
  const signIn = portal(302, { location: 'http://portal.example/' });
  const hosts = ['127.0.0.1'];
  const relay = await startTestServer({
    pki,
    certificate: pki.ca.issue({ uris: ['ztna://control-plane/cp'], hosts }),
  });
  t.teardown(() => relay.stop());
  let isSignedIn = false;
  gate.on('connection', (socket) => {
    (isSignedIn ? relay.server : signIn).emit('connection', socket);
  });
  const seen: string[] = [];
  const stopping = new AbortController();
  await redialForever({
    signal: stopping.signal,
    baseMs: 1,
    dial: () => dial(url),
    onWaiting: (error) => {
      seen.push(error.code);
      isSignedIn = seen.length === 2;
    },
    run: async (ws) => {
      stopping.abort();
      ws.terminate();
      await once(ws, 'close');
    },
  });
  t.deepEqual(seen, ['ERR_NETWORK_CAPTIVE_PORTAL', 'ERR_NETWORK_CAPTIVE_PORTAL']);
});
