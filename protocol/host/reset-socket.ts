import type { Socket } from 'node:net';

/**
 * Cuts a connection so that its peer sees a reset. One whose end is on its way out is cut right behind it, within
 * the same turn of the loop: a reset in between is refused by the system library, and Node then never closes it.
 */
export function resetSocket(socket: Socket): void {
  const isEnding = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  if (!isEnding) socket.resetAndDestroy();
  else socket.once('finish', () => socket.resetAndDestroy());
}
