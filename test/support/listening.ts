import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

/** Resolves when something accepts connections on the port, on loopback by default; rejects after 20 s. */
export async function untilListening(port: number, host = '127.0.0.1'): Promise<void> {
  const endAt = performance.now() + 20_000;
  while (performance.now() < endAt) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect({ port, host });
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', () => resolve(false));
    });
    if (isUp) return;
    await delay(5);
  }
  throw new Error(`nothing listens on ${host}:${port}`);
}
