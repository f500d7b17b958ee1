import type { ConnectorId } from '../../../protocol/index.ts';
import type { Departure } from '../channel/server-channel.ts';
import { connectorAwayMs, connectorReturnMs, connectorSilentMs } from '../limits.ts';

/**
 * How long each connector has been away, in control time: for a while its tunnels wait for it, then they end. After a
 * start of this process, or of the store, and once a data plane is there again, all of them are away, and get longer to come back.
 */
export class Absences {
  #startedAtMs: number;
  readonly #left = new Map<ConnectorId, { readonly atMs: number; readonly how: Departure }>();

  constructor(startedAtMs: number) {
    this.#startedAtMs = startedAtMs;
  }

  /** The store is back, or a way in is: while it was away nobody could be greeted, nor any report be taken. */
  restart(nowMs: number): void {
    this.#startedAtMs = nowMs;
  }

  /** It was cut, most likely because its process is dead; or only the way to it is out, and its apps' connections are there. */
  leave(connector: ConnectorId, nowMs: number, how: Departure = 'cut'): void {
    this.#left.set(connector, { atMs: nowMs, how });
  }

  comeBack(connector: ConnectorId): void {
    this.#left.delete(connector);
  }

  /** When waiting for a connector that is not here ends. */
  untilMs(connector: ConnectorId): number {
    const left = this.#left.get(connector);
    // One that was here since the start is missed from the moment it left.
    if (!left || left.atMs < this.#startedAtMs) return this.#startedAtMs + connectorReturnMs;
    return left.atMs + (left.how === 'cut' ? connectorAwayMs : connectorSilentMs);
  }

  /** Forgets those whose time is over. */
  sweep(nowMs: number): void {
    for (const connector of this.#left.keys()) {
      if (this.untilMs(connector) <= nowMs) this.#left.delete(connector);
    }
  }
}
