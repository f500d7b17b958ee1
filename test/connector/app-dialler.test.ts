import test from 'ava';
import { once } from 'node:events';
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { ZtnaError } from '../../protocol/index.ts';
import { dialApp, type AppDialOptions } from '../../connector/app-dialler.ts';

const live = () => new AbortController().signal;

async function listen(onConnection: (socket: Socket) => void): Promise<Server & { port: number }> {
  const server = createServer({ allowHalfOpen: true }, onConnection).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(server, { port: (server.address() as AddressInfo).port });
}

function dial(host: string, port: number, options: Partial<AppDialOptions> = {}) {
  return dialApp({ kind: 'tcp', host, port }, { signal: live(), ...options });
}

test('dialApp - connects and leaves the socket paused and half-closable', async (t) => {
  const server = await listen((socket) => socket.end('hello'));
  const socket = await dial('127.0.0.1', server.port);
  t.true(socket.isPaused());
  t.true(socket.allowHalfOpen);
  const chunks = await socket.toArray();
  t.is(Buffer.concat(chunks as Buffer[]).toString(), 'hello');
  t.true(socket.writable);
  socket.destroy();
  server.close();
});

test('dialApp - says refused when nothing listens', async (t) => {
  const server = await listen(() => undefined);
  server.close();
  await once(server, 'close');
  const error = await t.throwsAsync(dial('127.0.0.1', server.port), { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_STREAM_REFUSED');
  t.is(error.hop, 'app');
});

test('dialApp - says unreachable for a name that does not resolve', async (t) => {
  const resolve = () => Promise.reject(new Error('ENOTFOUND'));
  const error = await t.throwsAsync(dial('nowhere.invalid', 1, { resolve }), {
    instanceOf: ZtnaError,
  });
  t.is(error.code, 'ERR_STREAM_UNREACHABLE');
  t.is(error.reason, 'name_not_found');
});

test('dialApp - resolves once and dials an address of that answer', async (t) => {
  const server = await listen((socket) => socket.end());
  let asked = 0;
  const resolve = () => Promise.resolve(asked++ === 0 ? ['127.0.0.1'] : ['169.254.169.254']);
  const socket = await dial('app.test', server.port, { resolve });
  t.is(socket.remoteAddress, '127.0.0.1');
  t.is(asked, 1);
  socket.destroy();
  server.close();
});

test('dialApp - tries the next address when one refuses', async (t) => {
  const server = await listen((socket) => socket.end());
  const resolve = () => Promise.resolve(['127.0.0.2', '127.0.0.1']);
  const socket = await dial('app.test', server.port, { resolve });
  t.is(socket.remoteAddress, '127.0.0.1');
  socket.destroy();
  server.close();
});

for (const address of ['169.254.169.254', '::ffff:169.254.169.254', 'fd00:ec2::254']) {
  test(`dialApp - never dials a name that resolves to ${address}`, async (t) => {
    const resolve = () => Promise.resolve([address]);
    const error = await t.throwsAsync(dial('app.test', 80, { resolve }), { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_STREAM_UNREACHABLE');
    t.is(error.reason, 'address_blocked');
  });
}

test('dialApp - gives up a resolver that never answers', async (t) => {
  const resolve = () => new Promise<readonly string[]>(() => undefined);
  const error = await t.throwsAsync(dial('app.test', 80, { resolve, timeoutMs: 20 }), {
    instanceOf: ZtnaError,
  });
  t.is(error.code, 'ERR_STREAM_UNREACHABLE');
});

test('dialApp - stops when its tunnel ends', async (t) => {
  const tunnel = new AbortController();
  const resolve = () => {
    tunnel.abort();
    return Promise.resolve(['127.0.0.1']);
  };
  const error = await t.throwsAsync(dial('app.test', 80, { resolve, signal: tunnel.signal }), {
    instanceOf: ZtnaError,
  });
  t.is(error.code, 'ERR_STREAM_UNREACHABLE');
});
