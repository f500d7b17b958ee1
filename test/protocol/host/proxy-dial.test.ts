import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import test, { type ExecutionContext } from 'ava';
import { ZtnaError } from '../../../protocol/errors.ts';
import { newId } from '../../../protocol/id.ts';
import { controlProtocol } from '../../../protocol/messages/data.ts';
import { dialWebSocket } from '../../../protocol/host/dial.ts';
import { fetchBundle } from '../../../protocol/host/enrolment.ts';
import { ConnectProxy, type ConnectProxyOptions } from '../../support/connect-proxy.ts';
import { startTestServer } from '../../support/control-server.ts';
import { TestCa, TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const device = pki.dialIdentity(`ztna://device/${newId('device')}`);
const target = 'relay.example:4430';
const url = `https://${target}`;

interface Way {
  readonly proxy: ConnectProxy;
  readonly peers: string[];
}

/** A control plane that only a proxy can find: no name server knows relay.example. */
async function build(t: ExecutionContext, options: ConnectProxyOptions = {}): Promise<Way> {
  const peers: string[] = [];
  const certificate = pki.ca.issue({
    uris: ['ztna://control-plane/cp'],
    hosts: ['relay.example'],
  });
  const server = await startTestServer({
    pki,
    certificate,
    onSocket: (ws) => {
      peers.push(ws.protocol);
      ws.on('message', (data) => {
        ws.send(data as Buffer);
      });
    },
  });
  t.teardown(() => server.stop());
  const proxy = await ConnectProxy.start({
    routes: { [target]: new URL(server.url).host },
    ...options,
  });
  t.teardown(() => proxy.stop());
  return { proxy, peers };
}

function dial(timeoutMs = 5_000) {
  return dialWebSocket({
    url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity: device,
    path: '/v1/channel',
    timeoutMs,
  });
}

async function refused(t: ExecutionContext, timeoutMs?: number): Promise<ZtnaError> {
  return t.throwsAsync<ZtnaError>(dial(timeoutMs), { instanceOf: ZtnaError });
}

function use(proxy: string): void {
  process.env['HTTPS_PROXY'] = proxy;
}

test.afterEach.always(() => {
  Reflect.deleteProperty(process.env, 'HTTPS_PROXY');
});

async function echo(t: ExecutionContext): Promise<void> {
  const ws = await dial();
  t.teardown(() => {
    ws.terminate();
  });
  const payload = Buffer.alloc(60_000, 7);
  ws.send(payload);
  const [data] = (await once(ws, 'message')) as [Buffer];
  t.deepEqual(data, payload);
}

test.serial('dialWebSocket - goes through a proxy with mutual TLS and ALPN inside', async (t) => {
  const { proxy } = await build(t);
  use(`http://127.0.0.1:${proxy.port}`);
  await echo(t);
  t.deepEqual(proxy.targets, [target]);
});

test.serial('dialWebSocket - shows the proxy its user name and password', async (t) => {
  const { proxy } = await build(t, { credentials: 'al ice:p@ss:w/ord' });
  use(`http://al%20ice:p%40ss%3Aw%2Ford@127.0.0.1:${proxy.port}`);
  await echo(t);
});

test.serial(
  'dialWebSocket - goes through a proxy over TLS that a CA of this machine vouches for',
  async (t) => {
    const ca = new TestCa('proxy CA');
    const { proxy } = await build(t, { certificate: ca.issue(), credentials: 'alice:right' });
    const before = getCACertificates('default');
    setDefaultCACertificates([ca.certificatePem]);
    t.teardown(() => {
      setDefaultCACertificates(before);
    });
    use(`https://alice:right@127.0.0.1:${proxy.port}`);
    await echo(t);
    t.deepEqual(proxy.targets, [target]);
  },
);

test.serial('dialWebSocket - closing it closes the connection to the proxy', async (t) => {
  const { proxy } = await build(t);
  use(`http://127.0.0.1:${proxy.port}`);
  const ws = await dial();
  t.true(proxy.connections > 0);
  ws.terminate();
  while (proxy.connections > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  t.is(proxy.connections, 0);
});

test.serial(
  'dialWebSocket - a wrong password names proxy and status, never the password',
  async (t) => {
    const { proxy } = await build(t, { credentials: 'alice:right' });
    use(`http://alice:wrong-secret@127.0.0.1:${proxy.port}`);
    const error = await refused(t);
    t.is(error.code, 'ERR_NETWORK_PROXY');
    t.is(error.hop, 'network');
    t.is(error.reason, 'proxy_authentication');
    t.regex(
      error.message,
      new RegExp(`127\\.0\\.0\\.1:${proxy.port} .*407.*refused that user name`),
    );
    t.notRegex(`${error.message} ${error.hint ?? ''}`, /wrong-secret|alice/);
    t.regex(error.hint ?? '', /HTTPS_PROXY=http:\/\/USER:PASSWORD@/);
  },
);

test.serial(
  'dialWebSocket - a proxy that wants a password says so when none was set',
  async (t) => {
    const { proxy } = await build(t, { credentials: 'alice:right' });
    use(`http://127.0.0.1:${proxy.port}`);
    t.regex((await refused(t)).message, /407: it wants a user name and password/);
  },
);

for (const [name, answer, reason, message] of [
  ['that forbids it', '403 Forbidden\r\n', 'proxy_refused', /answered 403 for relay\.example:4430/],
  ['that cannot reach it', '502 Bad Gateway\r\n', 'proxy_no_way', /502: it could not reach relay/],
  [
    'that wants another kind of sign-in',
    '407 No\r\nproxy-authenticate: Negotiate\r\n',
    'proxy_authentication',
    /it wants “Negotiate”, and only Basic/,
  ],
] as const) {
  test.serial(`dialWebSocket - a proxy ${name} is named with its status`, async (t) => {
    const { proxy } = await build(t, { answer: `HTTP/1.1 ${answer}content-length: 0\r\n\r\n` });
    use(`http://127.0.0.1:${proxy.port}`);
    const error = await refused(t);
    t.is(error.code, 'ERR_NETWORK_PROXY');
    t.is(error.reason, reason);
    t.regex(error.message, message);
  });
}

test.serial('dialWebSocket - a proxy that redirects is a captive portal', async (t) => {
  const location = 'http://portal.example/login\u001b[2J';
  const { proxy } = await build(t, {
    answer: `HTTP/1.1 302 Found\r\nlocation: ${location}\r\n\r\n`,
  });
  use(`http://127.0.0.1:${proxy.port}`);
  const error = await refused(t);
  t.is(error.code, 'ERR_NETWORK_CAPTIVE_PORTAL');
  t.regex(error.message, /“http:\/\/portal\.example\/login\\u001b\[2J”/);
});

test.serial('dialWebSocket - a proxy that is not there is named', async (t) => {
  const { proxy } = await build(t);
  use(`http://127.0.0.1:${proxy.port}`);
  await proxy.stop();
  t.teardown(() => undefined);
  const error = await refused(t);
  t.is(error.code, 'ERR_NETWORK_PROXY');
  t.is(error.reason, 'proxy_unreachable');
  t.regex(error.message, /ECONNREFUSED/);
  t.regex(error.hint ?? '', /NO_PROXY=relay\.example/);
});

async function stranger(t: ExecutionContext, say: string | undefined): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    if (say === undefined) return;
    const more = () => {
      while (socket.write(say));
    };
    socket.on('drain', more);
    more();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test.serial('dialWebSocket - gives up on a proxy that never answers', async (t) => {
  use(await stranger(t, undefined));
  const error = await refused(t, 200);
  t.is(error.code, 'ERR_NETWORK_PROXY');
  t.is(error.reason, 'proxy_silent');
});

test.serial('dialWebSocket - gives up on a proxy whose answer has no end', async (t) => {
  use(await stranger(t, 'x'.repeat(1_000)));
  const error = await refused(t);
  t.is(error.code, 'ERR_NETWORK_PROXY');
  t.is(error.reason, 'proxy_no_proxy');
});

test.serial(
  'dialWebSocket - a proxy over TLS must have a certificate that this machine trusts',
  async (t) => {
    const certificate = new TestCa('proxy CA').issue();
    const { proxy } = await build(t, { certificate });
    use(`https://127.0.0.1:${proxy.port}`);
    const error = await refused(t);
    t.is(error.code, 'ERR_NETWORK_PROXY');
    t.is(error.reason, 'proxy_certificate');
    t.regex(error.hint ?? '', /NODE_EXTRA_CA_CERTS/);
    t.deepEqual(proxy.targets, []);
  },
);

test.serial('fetchBundle - asks through the proxy', async (t) => {
  const { proxy } = await build(t, { answer: 'HTTP/1.1 403 Forbidden\r\n\r\n' });
  use(`http://127.0.0.1:${proxy.port}`);
  await t.throwsAsync(fetchBundle(url, pki.rootId), { code: 'ERR_NETWORK_PROXY' });
  t.deepEqual(proxy.targets, [target]);
});
