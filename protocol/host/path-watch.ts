import type { Socket } from 'node:net';
import type { WebSocket } from 'ws';
import { watchConnection } from './connection-watch.ts';
import type { NetworkWatch } from './network-watch.ts';

/** How often an idle path says something, for address translators. */
const idlePingMs = 50_000;

/** How long one on which something is expected may be silent before it is asked. */
const busyPingMs = 4_000;

/** A path that brings nothing for so long, though something is expected of it, is dead. */
const deadAfterMs = 8_500;

const checkEveryMs = 500;

export interface PathWatchOptions {
  /** True while the other end owes us something. */
  readonly isBusy: () => boolean;
  /** Bytes that wait for the path to take them: fewer of them is progress too. */
  readonly waitingBytes: () => number;
  /** Without it a path that is not busy is left alone. */
  readonly keepsAlive?: boolean;
  /** Called once. */
  readonly onDead: () => void;
  /** What tells of sleep and other addresses; by default this machine's. */
  readonly network?: NetworkWatch;
}

/**
 * Watches one path and calls `onDead` when nothing came of it for 8.5 s (found within 9) while something was expected. Every byte
 * is a sign of life, also a part of a record, and so is a byte that it takes; a path that moves is never asked in vain.
 * After sleep and a change of the network it is asked at once, as `watchConnection` does.
 */
export function watchPath(webSocket: WebSocket, options: PathWatchOptions): () => void {
  // ws keeps it in a member that its types do not name; the package is pinned to one version.
  const { _socket: socket } = webSocket as unknown as { readonly _socket: Socket | null };
  let seenBytes = socket?.bytesRead ?? 0;
  let waitingBytes = options.waitingBytes();
  let aliveAtMs = performance.now();
  let askedAtMs: number | undefined;
  let wasBusy = false;
  const alive = (): void => {
    aliveAtMs = performance.now();
    askedAtMs = undefined;
  };
  const look = (): void => {
    const nowBytes = socket?.bytesRead ?? 0;
    const nowWaiting = options.waitingBytes();
    if (nowBytes !== seenBytes || nowWaiting < waitingBytes) alive();
    seenBytes = nowBytes;
    waitingBytes = nowWaiting;
    const isBusy = options.isBusy();
    if (isBusy && !wasBusy) aliveAtMs = askedAtMs ?? performance.now(); // until now nothing was owed
    wasBusy = isBusy;
  };
  const judge = (): void => {
    look();
    const nowMs = performance.now();
    const sinceMs = askedAtMs !== undefined && !wasBusy ? askedAtMs : aliveAtMs;
    const isExpected = wasBusy || askedAtMs !== undefined;
    if (isExpected && nowMs - sinceMs >= deadAfterMs) {
      stop();
      options.onDead();
      return;
    }
    const pingMs = wasBusy ? busyPingMs : options.keepsAlive === true ? idlePingMs : Infinity;
    if (askedAtMs !== undefined || nowMs - aliveAtMs < pingMs) return;
    askedAtMs = nowMs;
    if (webSocket.readyState === webSocket.OPEN) webSocket.ping();
  };
  // After a stall of this process timers run before what has arrived meanwhile was read.
  const timer = setInterval(() => {
    setImmediate(judgeUnlessStopped);
  }, checkEveryMs);
  let isStopped = false;
  const judgeUnlessStopped = (): void => {
    if (!isStopped) judge();
  };
  const stop = (): void => {
    isStopped = true;
    clearInterval(timer);
    stopWatching();
    webSocket.off('pong', alive);
    webSocket.off('close', stop);
  };
  const { network } = options;
  const stopWatching = watchConnection(
    webSocket,
    () => {
      stop();
      options.onDead();
    },
    network && { network },
  );
  webSocket.on('pong', alive);
  webSocket.once('close', stop);
  return stop;
}
