import type { WebSocket } from 'ws';
import { fromCloseFrame, isErrorCode, toCloseFrame, ZtnaError } from '../errors.ts';

const closeWithinMs = 1_000;

/** Long enough for a close frame to leave this machine. */
const saidWithinMs = 100;

/** Why the other end closed: its error code, or else a lost connection. */
export function closeError(closeCode: number, text: string): ZtnaError {
  const error = fromCloseFrame(closeCode, text);
  if (isErrorCode(text) && error.code === text) {
    return new ZtnaError(error.code, { hop: 'relay' });
  }
  return new ZtnaError('ERR_RELAY_UNREACHABLE', {
    message: `the connection to the relay was lost (${closeCode})`,
    hop: 'network',
    reason: 'channel_lost',
  });
}

/** What a channel that its own side gave up ends with: the signal's reason when it is one of our errors. */
export function aborted(signal: AbortSignal): ZtnaError {
  const reason: unknown = signal.reason;
  if (reason instanceof ZtnaError) return reason;
  return new ZtnaError('ERR_TUNNEL_CLOSED', {
    message: 'the control channel was closed here',
    reason: 'closed_here',
    cause: reason,
  });
}

/** Closes with an error's close code and name, or plainly without one. */
export function closeWith(ws: WebSocket, error: unknown): void {
  if (error === undefined) {
    closeSoon(ws, 1_000, '');
    return;
  }
  const { closeCode, text } = toCloseFrame(error);
  closeSoon(ws, closeCode, text);
}

/** Cuts a connection that does not work, a moment after saying so: one way of it may. */
export function giveUp(ws: WebSocket, error: unknown): void {
  const { closeCode, text } = toCloseFrame(error);
  ws.close(closeCode, text);
  const timer = setTimeout(() => {
    ws.terminate();
  }, saidWithinMs);
  ws.once('close', () => {
    clearTimeout(timer);
  });
}

/** Closes, and cuts the connection when the other end does not answer in time. */
export function closeSoon(ws: WebSocket, closeCode: number, text: string): void {
  if (ws.readyState === ws.CLOSED) return;
  ws.close(closeCode, text);
  const timer = setTimeout(() => {
    ws.terminate();
  }, closeWithinMs);
  ws.once('close', () => {
    clearTimeout(timer);
  });
}
