import type { WebSocket } from 'ws';

/** How often an idle path says something, for address translators, and one that carries streams, to find it dead. */
const idlePingMs = 50_000;
const busyPingMs = 5_000;

/** A path that brings nothing for so long after it was asked is dead. */
const deadAfterMs = 10_000;

const checkEveryMs = 1_000;

/**
 * Watches one path: asks for a sign of life while streams are open, now and then otherwise, and calls `onDead` once
 * when none comes. Any frame counts, so a path that moves bytes is never asked in vain.
 */
export function watchPath(
  webSocket: WebSocket,
  options: { readonly hasStreams: () => boolean; readonly onDead: () => void },
): void {
  let heardAtMs = performance.now();
  let askedAtMs: number | undefined;
  let saidAtMs = heardAtMs;
  const heard = (): void => {
    heardAtMs = performance.now();
    askedAtMs = undefined;
  };
  const timer = setInterval(() => {
    const nowMs = performance.now();
    if (askedAtMs !== undefined && nowMs - askedAtMs >= deadAfterMs) {
      stop();
      options.onDead();
      return;
    }
    const pingMs = options.hasStreams() ? busyPingMs : idlePingMs;
    if (askedAtMs !== undefined || nowMs - Math.max(heardAtMs, saidAtMs) < pingMs) return;
    askedAtMs = nowMs;
    saidAtMs = nowMs;
    webSocket.ping();
  }, checkEveryMs);
  const stop = (): void => {
    clearInterval(timer);
    webSocket.off('message', heard);
    webSocket.off('pong', heard);
    webSocket.off('ping', heard);
  };
  webSocket.on('message', heard);
  webSocket.on('pong', heard);
  webSocket.on('ping', heard);
  webSocket.once('close', stop);
}
