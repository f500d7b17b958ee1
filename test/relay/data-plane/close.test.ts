import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { WebSocket, WebSocketServer } from 'ws';
import { ZtnaError } from '../../../protocol/index.ts';
import { closeBehind, closeSoon } from '../../../relay/data-plane/close.ts';
import { limits } from '../../../relay/data-plane/limits.ts';

const messageBytes = 65_535;
const messages = 512; // more than the kernel buffers for one connection

/** A socket with much queued for a peer that reads nothing yet. */
async function clogged(t: ExecutionContext) {
  const server = new WebSocketServer({
    host: '127.0.0.1',
    port: 0,
    closeTimeout: limits.closeHandshakeMs,
  } as ConstructorParameters<typeof WebSocketServer>[0]);
  await once(server, 'listening');
  const connected = once(server, 'connection') as Promise<[WebSocket]>;
  const peer = new WebSocket(`ws://127.0.0.1:${(server.address() as { port: number }).port}`);
  const [[ws]] = await Promise.all([connected, once(peer, 'open')]);
  t.teardown(() => {
    peer.terminate();
    ws.terminate();
    server.close();
  });
  let bytes = 0;
  peer.on('message', (data: Buffer) => {
    bytes += data.length;
  });
  peer.on('error', () => undefined);
  peer.pause();
  for (let i = 0; i < messages; i++) ws.send(Buffer.alloc(messageBytes));
  t.true(ws.bufferedAmount > 0);
  return { ws, peer, bytes: () => bytes };
}

const error = new ZtnaError('ERR_TUNNEL_CLOSED');

test('closeBehind - lets everything queued out first, however late the peer takes it', async (t) => {
  const { ws, peer, bytes } = await clogged(t);
  closeBehind(ws, error);
  await wait(limits.closeHandshakeMs + 2 * limits.closeGraceMs);
  peer.resume();
  const [code, text] = (await once(peer, 'close')) as [number, Buffer];
  t.is(bytes(), messages * messageBytes);
  t.deepEqual([code, text.toString()], [4400, 'ERR_TUNNEL_CLOSED']);
});

test('closeBehind - gives up a peer that takes nothing', async (t) => {
  const { ws } = await clogged(t);
  closeBehind(ws, error);
  const [code] = (await once(ws, 'close')) as [number];
  t.is(code, 1006);
});

test('closeSoon - cuts a connection whose queue does not get out at once', async (t) => {
  const { ws, peer, bytes } = await clogged(t);
  closeSoon(ws, error);
  await once(ws, 'close');
  peer.resume();
  await once(peer, 'close');
  t.true(bytes() < messages * messageBytes);
});
