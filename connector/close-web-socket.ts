import { toCloseFrame } from '../protocol/index.ts';
import { closeTimeoutMs } from './limits.ts';
import type { WebSocket } from 'ws';

/**
 * Closes with a code and text, or with what a peer may know of an error; a peer that does not answer is cut off
 * after `closeTimeoutMs`. Does nothing to a socket that is closed.
 */
export function closeWebSocket(socket: WebSocket, code: number, text: string): void;
export function closeWebSocket(socket: WebSocket, error: unknown): void;
export function closeWebSocket(socket: WebSocket, codeOrError: unknown, text?: string): void {
  if (socket.readyState === socket.CLOSED) return;
  const frame =
    typeof codeOrError === 'number'
      ? { closeCode: codeOrError, text: text ?? '' }
      : toCloseFrame(codeOrError);
  const timer = setTimeout(() => {
    socket.terminate();
  }, closeTimeoutMs);
  socket.on('error', () => undefined);
  socket.once('close', () => {
    clearTimeout(timer);
  });
  socket.resume(); // a paused socket never sees the peer's close frame
  socket.close(frame.closeCode, frame.text);
}
