import type { WebSocket } from 'ws';

/** How many measurements count. */
const kept = 5;

/** The least round trip of the last few pings: what is above it is waiting, not distance. */
export class RoundTripMeter {
  readonly #measuredMs: number[] = [];
  #count = 0;

  /** In milliseconds; undefined before the first answer. */
  get ms(): number | undefined {
    return this.#measuredMs.length === 0 ? undefined : Math.min(...this.#measuredMs);
  }

  /** Pings a socket once; what comes back on it is counted. */
  measure(socket: WebSocket): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(++this.#count % 0x1_0000_0000);
    const sentAtMs = performance.now();
    const onPong = (data: Buffer) => {
      if (!payload.equals(data)) return;
      socket.off('pong', onPong);
      this.#measuredMs.push(performance.now() - sentAtMs);
      if (this.#measuredMs.length > kept) this.#measuredMs.shift();
    };
    socket.on('pong', onPong);
    socket.once('close', () => socket.off('pong', onPong));
    if (socket.readyState === socket.OPEN) socket.ping(payload);
  }
}
