import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { WebSocket, WebSocketServer } from 'ws';
import { startLiveness } from '../../../protocol/host/liveness.ts';

/** A WebSocket whose peer answers pings, or says something every so often, or neither. */
async function pair(
  t: ExecutionContext,
  autoPong: boolean,
  talkEveryMs?: number,
): Promise<WebSocket> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', autoPong });
  await once(server, 'listening');
  const talk = setInterval(() => {
    if (talkEveryMs !== undefined) for (const peer of server.clients) peer.send('{}');
  }, talkEveryMs ?? 1_000);
  t.teardown(() => {
    clearInterval(talk);
    for (const ws of server.clients) ws.terminate();
    server.close();
  });
  const ws = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  await once(ws, 'open');
  t.teardown(() => {
    ws.terminate();
  });
  return ws;
}

test('startLiveness - reports a peer that answers nothing', async (t) => {
  const ws = await pair(t, false);
  const error = await new Promise<{ code: string; reason: string | undefined }>((resolve) => {
    startLiveness(ws, resolve, { pingEveryMs: 10, deadAfterMs: 50 });
  });
  t.is(error.code, 'ERR_RELAY_UNREACHABLE');
  t.is(error.reason, 'channel_silent');
});

test('startLiveness - any answer keeps a peer alive', async (t) => {
  const ws = await pair(t, true);
  const stop = startLiveness(ws, () => t.fail(), { pingEveryMs: 10, deadAfterMs: 2_000 });
  let pongs = 0;
  await new Promise<void>((resolve) => {
    ws.on('pong', () => {
      pongs += 1;
      if (pongs === 3) resolve();
    });
  });
  stop();
  t.is(ws.readyState, ws.OPEN);
});

test('startLiveness - reports a peer that goes on talking and answers nothing', async (t) => {
  const ws = await pair(t, false, 5);
  const error = await new Promise<{ reason: string | undefined }>((resolve) => {
    startLiveness(ws, resolve, { pingEveryMs: 10, deadAfterMs: 100 });
  });
  t.is(error.reason, 'channel_silent');
});
