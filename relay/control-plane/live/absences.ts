import type { ConnectorId } from '../../../protocol/index.ts';
import { connectorAwayMs, connectorReturnMs } from '../limits.ts';

/**
 * How long each connector has been away, in control time: for a while its tunnels wait for it, then they end. After a
 * start of this process, or of the store, and once a data plane is there again, all of them are away, and get longer to come back.
 */
export class Absences {
  #startedAtMs: number;
  readonly #leftAtMs = new Map<ConnectorId, number>();

  constructor(startedAtMs: number) {
    this.#startedAtMs = startedAtMs;
  }

  /** The store is back, or a way in is: while it was away nobody could be greeted, nor any report be taken. */
  restart(nowMs: number): void {
    this.#startedAtMs = nowMs;
  }

  leave(connector: ConnectorId, nowMs: number): void {
    this.#leftAtMs.set(connector, nowMs);
  }

  comeBack(connector: ConnectorId): void {
    this.#leftAtMs.delete(connector);
  }

  /** When waiting for a connector that is not here ends. */
  untilMs(connector: ConnectorId): number {
    const leftAtMs = this.#leftAtMs.get(connector);
    // One that was here since the start is missed from the moment it left.
    const isMissed = leftAtMs !== undefined && leftAtMs >= this.#startedAtMs;
    return isMissed ? leftAtMs + connectorAwayMs : this.#startedAtMs + connectorReturnMs;
  }

  /** Forgets those whose time is over. */
  sweep(nowMs: number): void {
    for (const connector of this.#leftAtMs.keys()) {
      if (this.untilMs(connector) <= nowMs) this.#leftAtMs.delete(connector);
    }
  }
}
