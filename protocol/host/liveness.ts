import type { WebSocket } from 'ws';
import { ZtnaError } from '../errors.ts';

export const pingEveryMs = 4_000;
export const deadAfterMs = 9_000;

/**
 * Pings a WebSocket every 4 s and reports it dead once nothing at all was heard for 9 s. For both ends of a
 * control channel. Returns what stops it.
 */
export function startLiveness(
  ws: WebSocket,
  onDead: (error: ZtnaError) => void,
  limits: { readonly pingEveryMs?: number; readonly deadAfterMs?: number } = {},
): () => void {
  const deadMs = limits.deadAfterMs ?? deadAfterMs;
  let heardAtMs = performance.now();
  let timer: NodeJS.Timeout;
  let isStopped = false;
  const hear = () => {
    heardAtMs = performance.now();
  };
  const judge = () => {
    if (isStopped) return;
    const leftMs = heardAtMs + deadMs - performance.now();
    if (leftMs > 0) {
      timer = setTimeout(verdictAfterReading, Math.ceil(leftMs));
      return;
    }
    stop();
    onDead(
      new ZtnaError('ERR_RELAY_UNREACHABLE', {
        message: `nothing was heard for ${deadMs / 1_000} s`,
        hop: 'network',
        reason: 'channel_silent',
      }),
    );
  };
  // After a stall of this process, timers run before what has arrived meanwhile was read.
  const verdictAfterReading = () => {
    setImmediate(judge);
  };
  const pinger = setInterval(() => {
    if (ws.readyState === ws.OPEN) ws.ping();
  }, limits.pingEveryMs ?? pingEveryMs);
  timer = setTimeout(verdictAfterReading, deadMs);
  ws.on('message', hear);
  ws.on('ping', hear);
  ws.on('pong', hear);

  function stop(): void {
    isStopped = true;
    clearTimeout(timer);
    clearInterval(pinger);
    ws.off('message', hear);
    ws.off('ping', hear);
    ws.off('pong', hear);
  }
  return stop;
}
