import type { WebSocket } from 'ws';
import { ZtnaError } from '../errors.ts';

export const pingEveryMs = 3_000;
export const deadAfterMs = 8_000;

/** Where only our own way is cut, the peer is heard for a while longer: then its answers are missed, so much later. */
const answersMissed = 9 / 8;
/** An answer may take this part of that time, however long ago the last one came. */
const answerPart = 5 / 8;

/**
 * Pings a WebSocket every 3 s and reports it dead once nothing at all was heard for 8 s, or for 9 s no answer to a ping,
 * which a peer shows whose own messages still come although ours do not arrive. A slow way alone is not dead: answers
 * that are late come as often as those that are not. For both ends of a control channel. Returns what stops it.
 */
export function startLiveness(
  ws: WebSocket,
  onDead: (error: ZtnaError) => void,
  limits: { readonly pingEveryMs?: number; readonly deadAfterMs?: number } = {},
): () => void {
  const deadMs = limits.deadAfterMs ?? deadAfterMs;
  const startedAtMs = performance.now();
  let heardAtMs = startedAtMs;
  let answeredAtMs = startedAtMs;
  let askedAtMs = Infinity; // since the last answer
  let timer: NodeJS.Timeout;
  let isStopped = false;
  const hear = () => {
    heardAtMs = performance.now();
  };
  const answer = () => {
    hear();
    answeredAtMs = heardAtMs;
    askedAtMs = Infinity;
  };
  const judge = () => {
    if (isStopped) return;
    const answerDueMs = Math.max(
      answeredAtMs + deadMs * answersMissed,
      askedAtMs + deadMs * answerPart,
    );
    const leftMs = Math.min(heardAtMs + deadMs, answerDueMs) - performance.now();
    if (leftMs > 0) {
      timer = setTimeout(verdictAfterReading, Math.ceil(Math.min(leftMs, deadMs / 4)));
      return;
    }
    stop();
    onDead(
      new ZtnaError('ERR_RELAY_UNREACHABLE', {
        message: `nothing was heard for ${deadMs / 1_000} s, or no answer`,
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
    if (ws.readyState !== ws.OPEN) return;
    ws.ping();
    askedAtMs = Math.min(askedAtMs, performance.now());
  }, limits.pingEveryMs ?? pingEveryMs);
  timer = setTimeout(verdictAfterReading, deadMs / 4);
  ws.on('message', hear);
  ws.on('ping', hear);
  ws.on('pong', answer);

  function stop(): void {
    isStopped = true;
    clearTimeout(timer);
    clearInterval(pinger);
    ws.off('message', hear);
    ws.off('ping', hear);
    ws.off('pong', answer);
  }
  return stop;
}
