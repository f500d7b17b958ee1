import test, { type ExecutionContext } from 'ava';
import { once } from 'node:events';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { checkApp, defaultCheck, type CheckOptions } from '../../connector/app-check.ts';
import { parseTarget, type Target } from '../../connector/target.ts';

const forever = new AbortController().signal;
const byHttp: CheckOptions = { ...defaultCheck, httpPath: '/healthz?full=1' };

async function targetOf(t: ExecutionContext, server: Server): Promise<Target> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return parseTarget(`tcp://127.0.0.1:${(server.address() as AddressInfo).port}`);
}

const http = (t: ExecutionContext, answer: RequestListener) =>
  targetOf(t, createHttpServer(answer));

test('checkApp - is content with a connection, and leaves it', async (t) => {
  const ended = Promise.withResolvers<string>();
  const server = createServer((socket) => {
    socket.on('error', ended.reject);
    socket.once('close', () => {
      ended.resolve('closed');
    });
    socket.resume();
  });
  const target = await targetOf(t, server);
  t.is(await checkApp(target, defaultCheck, forever), undefined);
  t.is(await ended.promise, 'closed');
});

test('checkApp - says why there is no connection', async (t) => {
  const server = createServer();
  const target = await targetOf(t, server);
  server.close();
  await once(server, 'close');
  t.is(await checkApp(target, defaultCheck, forever), 'app_refused');
  const nowhere = parseTarget('tcp://app.internal:80');
  const resolve = () => Promise.reject(new Error('no such name'));
  t.is(await checkApp(nowhere, defaultCheck, forever, resolve), 'name_not_found');
  const metadata = () => Promise.resolve(['169.254.169.254']);
  t.is(await checkApp(nowhere, defaultCheck, forever, metadata), 'address_blocked');
});

test('checkApp - asks for the path with the host of the target', async (t) => {
  const asked = Promise.withResolvers<(string | undefined)[]>();
  const target = await http(t, (request, response) => {
    asked.resolve([request.method, request.url, request.headers.host]);
    response.writeHead(204).end();
  });
  t.is(await checkApp(target, byHttp, forever), undefined);
  t.deepEqual(await asked.promise, ['GET', '/healthz?full=1', `127.0.0.1:${target.port}`]);
});

for (const [status, outcome] of [
  [200, undefined],
  [302, undefined],
  [404, 'http_status_404'],
  [503, 'http_status_503'],
] as const) {
  test(`checkApp - takes the answer ${status} for ${outcome ?? 'health'}`, async (t) => {
    const target = await http(t, (_request, response) => {
      response.writeHead(status).end();
    });
    t.is(await checkApp(target, byHttp, forever), outcome);
  });
}

test('checkApp - reads no body, however long it goes on', async (t) => {
  const left = Promise.withResolvers<undefined>();
  const target = await http(t, (_request, response) => {
    response.once('close', () => {
      left.resolve(undefined);
    });
    response.writeHead(200);
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536)));
      if (!response.destroyed) response.once('drain', more);
    };
    more();
  });
  t.is(await checkApp(target, byHttp, forever), undefined);
  await left.promise;
});

test('checkApp - gives up an app that takes a connection and says nothing', async (t) => {
  const server = createServer((socket) => socket.on('error', () => undefined));
  const target = await targetOf(t, server);
  const check = { ...byHttp, timeoutMs: 100 };
  t.regex((await checkApp(target, check, forever)) ?? '', /^(timeout|http_failed)$/);
});

test('checkApp - refuses what is no HTTP, and headers without end', async (t) => {
  for (const text of ['SSH-2.0-x\r\n', `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`]) {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.write(text);
    });
    t.is(await checkApp(await targetOf(t, server), byHttp, forever), 'http_failed');
  }
});

test('checkApp - ends when it is told to', async (t) => {
  const stopping = new AbortController();
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    stopping.abort();
  });
  const target = await targetOf(t, server);
  t.not(await checkApp(target, byHttp, stopping.signal), undefined);
});
