import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** Resolves when something accepts connections on the port, on loopback by default; rejects after 20 s. */
export async function untilListening(port: number, host = '127.0.0.1'): Promise<void> {
  for (const endAt = performance.now() + 20_000; performance.now() < endAt; await delay(5)) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect({ port, host });
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
    if (isUp) return;
  }
  throw new Error(`nothing listens on ${host}:${port}`);
}
