import type { WebSocket } from 'ws';
import { toCloseFrame, type ZtnaError } from '../../protocol/index.ts';
import { limits } from './limits.ts';

/** Closes `ws` so that its owner can see why; whatever it still sends is not read. */
export function refuse(ws: WebSocket, error: unknown): void {
  const { closeCode, text } = toCloseFrame(error);
  ws.on('error', () => undefined);
  ws.resume();
  ws.close(closeCode, text);
}

/** Tells `ws` why it is closed, and cuts it when what is queued ahead of that does not get out at once. */
export function closeSoon(ws: WebSocket, error: ZtnaError): void {
  if (ws.readyState === ws.CLOSED) return;
  refuse(ws, error);
  const timer = setTimeout(() => {
    if (ws.bufferedAmount > 0) ws.terminate();
  }, limits.closeGraceMs);
  ws.once('close', () => {
    clearTimeout(timer);
  });
}

/** Closes `ws` once everything queued for it is out, for as long as the peer goes on taking it. */
export function closeBehind(ws: WebSocket, error: ZtnaError): void {
  if (ws.bufferedAmount === 0 || ws.readyState !== ws.OPEN) {
    closeSoon(ws, error);
    return;
  }
  let queued = ws.bufferedAmount;
  const timer = setInterval(() => {
    if (ws.bufferedAmount >= queued) ws.terminate();
    queued = ws.bufferedAmount;
  }, limits.deadAfterMs);
  ws.once('close', () => {
    clearInterval(timer);
  });
  ws.resume(); // what it says has no taker any more, but its close must be seen
  ws.ping(undefined, undefined, () => {
    clearInterval(timer);
    closeSoon(ws, error);
  });
}
