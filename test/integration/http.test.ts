import { Agent, createServer, get, request, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import anyTest, { type TestFn } from 'ava';
import { WebSocket, WebSocketServer } from 'ws';
import { Deployment } from '../support/deployment.ts';

interface Context {
  deployment: Deployment;
  port: number;
  connections: () => number;
  close: () => void;
}
const test = anyTest as TestFn<Context>;

test.before('an HTTP server behind a connector', async (t) => {
  t.timeout(60_000);
  let connections = 0;
  const server = createServer((incoming, response) => {
    const url = new URL(incoming.url ?? '/', 'http://app');
    if (url.pathname === '/chunked') {
      for (let i = 0; i < 64; i++) response.write(`${i}:${'c'.repeat(i * 97)}\n`);
      response.end('end');
    } else if (url.pathname === '/echo') incoming.pipe(response);
    else response.end(`hello ${url.searchParams.get('n') ?? ''}`);
  });
  server.on('connection', () => connections++);
  const sockets = new WebSocketServer({ server });
  sockets.on('connection', (socket) =>
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })),
  );
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.context.deployment = await Deployment.start({
    // Connections are counted, and nobody but clients may make one.
    apps: [
      {
        name: 'web',
        target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`,
        health: 'off',
      },
    ],
  });
  const machine = await t.context.deployment.enrol();
  t.context.port = (await t.context.deployment.connect(machine, 'web')).port;
  t.context.connections = () => connections;
  t.context.close = () => {
    sockets.close();
    server.close();
    server.closeAllConnections();
  };
});

test.after.always('stop', async (t) => {
  await t.context.deployment.stop();
  t.context.close();
});

async function text(message: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of message.setEncoding('utf8')) body += String(chunk);
  return body;
}

test.serial('HTTP - keep-alive serves many requests over one connection', async (t) => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const before = t.context.connections();
  for (let n = 0; n < 50; n++) {
    const [response] = (await once(
      get({ port: t.context.port, host: '127.0.0.1', path: `/?n=${n}`, agent }),
      'response',
    )) as [IncomingMessage];
    t.is(await text(response), `hello ${n}`);
  }
  agent.destroy();
  t.is(t.context.connections() - before, 1);
});

test.serial('HTTP - chunked bodies arrive whole, both ways', async (t) => {
  const response = await fetch(`http://127.0.0.1:${t.context.port}/chunked`);
  const expected = Array.from({ length: 64 }, (_, i) => `${i}:${'c'.repeat(i * 97)}\n`).join('');
  t.is(await response.text(), `${expected}end`);

  const upload = request({
    port: t.context.port,
    host: '127.0.0.1',
    path: '/echo',
    method: 'POST',
  });
  for (let i = 0; i < 200; i++) upload.write(`${i},`.repeat(500));
  upload.end();
  const [echo] = (await once(upload, 'response')) as [IncomingMessage];
  t.is(await text(echo), Array.from({ length: 200 }, (_, i) => `${i},`.repeat(500)).join(''));
});

test.serial('HTTP - a WebSocket of the app carries text and binary messages', async (t) => {
  const socket = new WebSocket(`ws://127.0.0.1:${t.context.port}/`);
  await once(socket, 'open');
  for (const size of [0, 1, 125, 126, 65_535, 65_536, 300_000]) {
    const message = Buffer.alloc(size, size);
    socket.send(message);
    const [answer, isBinary] = (await once(socket, 'message')) as [Buffer, boolean];
    t.true(isBinary);
    t.true(answer.equals(message), `${size} bytes`);
  }
  socket.send('text');
  const [answer] = (await once(socket, 'message')) as [Buffer];
  t.is(answer.toString(), 'text');
  socket.close();
  await once(socket, 'close');
});

test.serial('HTTP - 200 parallel connections each get their own answer', async (t) => {
  const before = t.context.connections();
  const bodies = await Promise.all(
    Array.from({ length: 200 }, async (_, n) => {
      const [response] = (await once(
        get({ port: t.context.port, host: '127.0.0.1', path: `/?n=${n}`, agent: false }),
        'response',
      )) as [IncomingMessage];
      return text(response);
    }),
  );
  t.deepEqual(
    bodies,
    Array.from({ length: 200 }, (_, n) => `hello ${n}`),
  );
  t.is(t.context.connections() - before, 200);
});
