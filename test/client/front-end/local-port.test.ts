import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import type { OpenedTunnel } from '../../../client/agent/kept-tunnel.ts';
import {
  startLocalPort,
  type LocalPort,
  type TunnelProvider,
} from '../../../client/front-end/local-port.ts';
import { TunnelPair, type TunnelPairOptions } from '../../support/tunnel-pair.ts';

/** A tunnel whose two ends are joined within this process. */
function joinedTunnel(options: TunnelPairOptions = {}): { tunnel: OpenedTunnel; pair: TunnelPair } {
  const pair = new TunnelPair(options);
  const tunnel = { isOpen: true, openStream: () => pair.client.open() } as unknown as OpenedTunnel;
  return { tunnel, pair };
}

async function start(t: ExecutionContext, provider: TunnelProvider): Promise<LocalPort> {
  const port = await startLocalPort({ host: '127.0.0.1', port: 0 }, provider);
  t.teardown(() => port.stop());
  return port;
}

function dial(t: ExecutionContext, port: LocalPort): Socket {
  const socket = connect({ ...port.address, allowHalfOpen: true });
  t.teardown(() => socket.destroy());
  return socket;
}

/** The error with which a socket closes; undefined for a clean end. */
async function endOf(socket: Socket): Promise<string | undefined> {
  return new Promise((resolve) => {
    let code: string | undefined;
    socket.on('error', (error: NodeJS.ErrnoException) => (code = error.code));
    socket.on('close', () => {
      resolve(code);
    });
    socket.resume();
  });
}

test('startLocalPort - tells why a stream was reset', async (t) => {
  const { tunnel, pair } = joinedTunnel();
  const { promise, resolve } = Promise.withResolvers<string>();
  const provider = { current: tunnel, whenOpen: async () => Promise.resolve(tunnel) };
  const port = await startLocalPort({ host: '127.0.0.1', port: 0 }, provider, resolve);
  t.teardown(() => port.stop());
  const ended = endOf(dial(t, port));
  const deadline = AbortSignal.timeout(5_000);
  while (!pair.served[0]) {
    if (deadline.aborted) throw new Error('nothing came');
    await new Promise(setImmediate);
    pair.settle();
  }
  pair.served[0].stream.reset('refused');
  pair.settle();
  t.is(await promise, 'refused');
  t.is(await ended, 'ECONNRESET');
});

test('startLocalPort - opens one stream for each connection', async (t) => {
  const { tunnel, pair } = joinedTunnel();
  const port = await start(t, { current: tunnel, whenOpen: async () => Promise.resolve(tunnel) });
  const socket = dial(t, port);
  socket.write('hello');
  const deadline = AbortSignal.timeout(5_000);
  while (pair.served[0]?.bytes.toString() !== 'hello') {
    if (deadline.aborted) throw new Error('nothing came');
    await new Promise(setImmediate);
    pair.settle();
  }
  pair.served[0].stream.write(Buffer.from('world'));
  pair.served[0].stream.end();
  pair.settle();
  let text = '';
  socket.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await once(socket, 'end');
  t.is(text, 'world');
});

test('startLocalPort - resets a connection when there will be no tunnel', async (t) => {
  const port = await start(t, {
    current: undefined,
    whenOpen: async () => Promise.resolve(undefined),
  });
  t.is(await endOf(dial(t, port)), 'ECONNRESET');
});

test('startLocalPort - resets a connection when the tunnel has no room for it', async (t) => {
  const { tunnel } = joinedTunnel({ limits: { streams: 0 } });
  const port = await start(t, { current: tunnel, whenOpen: async () => Promise.resolve(tunnel) });
  t.is(await endOf(dial(t, port)), 'ECONNRESET');
});

test('startLocalPort - lets a connection wait for the tunnel, and stop giving up on it', async (t) => {
  const asked = Promise.withResolvers<AbortSignal>();
  const port = await start(t, {
    current: undefined,
    whenOpen: async (signal) => {
      asked.resolve(signal);
      return new Promise((resolve) => {
        signal.addEventListener('abort', () => resolve(undefined), { once: true });
      });
    },
  });
  const socket = dial(t, port);
  const end = endOf(socket);
  t.false((await asked.promise).aborted);
  await port.stop();
  t.is(await end, 'ECONNRESET');
  t.true((await asked.promise).aborted);
});

test('LocalPort.stop - resets what is connected and may be called again', async (t) => {
  const { tunnel } = joinedTunnel();
  const port = await start(t, { current: tunnel, whenOpen: async () => Promise.resolve(tunnel) });
  const socket = dial(t, port);
  await once(socket, 'connect');
  const end = endOf(socket);
  await port.stop();
  await port.stop();
  t.is(await end, 'ECONNRESET');
});
