import type { Assign, RelayId } from '../protocol/index.ts';
import type { Logger } from '../protocol/host/index.ts';
import { maxRelays } from './limits.ts';
import { Slots, type SlotsState } from './slots.ts';
import type { WebSocket } from 'ws';

export interface RelaySlotsOptions {
  /** Dials one data WebSocket at the relay of that address; rejects when the signal aborts. */
  readonly dial: (url: string, signal: AbortSignal) => Promise<WebSocket>;
  readonly onAssign: (socket: WebSocket, assign: Assign, relay: RelayId) => void;
  /** The number of idle ones changed somewhere. */
  readonly onChange: () => void;
  readonly logger: Logger;
  /** For tests: the usual time after which a relay is wedged. */
  readonly wedgedAfterMs?: number;
}

/** How the idle sockets at one relay stand. */
export interface RelayState {
  readonly id: RelayId;
  readonly url: string;
  readonly idle: number;
  readonly wanted: number;
  readonly state: SlotsState;
  /** Round trip, as measured; null while it is not known. */
  readonly roundTripMs: number | null;
}

interface Kept {
  readonly url: string;
  readonly slots: Slots;
}

/** The idle data WebSockets at every relay, which come and go as the list of relays does. */
export class RelaySlots {
  readonly #options: RelaySlotsOptions;
  readonly #relays = new Map<RelayId, Kept>();
  #limit = Infinity;

  constructor(options: RelaySlotsOptions) {
    this.#options = options;
  }

  /** Keeps so many idle at each of these relays from now on, and none elsewhere. */
  use(relays: readonly { readonly id: RelayId; readonly url: string }[], count: number): void {
    const used = relays.slice(0, maxRelays);
    for (const [id, { url, slots }] of [...this.#relays]) {
      if (used.some((relay) => relay.id === id && relay.url === url)) continue;
      this.#relays.delete(id);
      slots.stop();
    }
    for (const { id, url } of used) {
      if (!this.#relays.has(id)) this.#add(id, url, Math.min(count, this.#limit));
    }
  }

  #add(relay: RelayId, url: string, count: number): void {
    const { dial, onAssign, onChange, logger, wedgedAfterMs } = this.#options;
    const slots = new Slots({
      relay,
      count,
      dial: (signal) => dial(url, signal),
      onAssign: (socket, assign) => {
        onAssign(socket, assign, relay);
      },
      onChange,
      logger,
      ...(wedgedAfterMs === undefined ? {} : { wedgedAfterMs }),
    });
    this.#relays.set(relay, { url, slots });
  }

  /** Keeps fewer at every relay, also at those to come. */
  shrinkTo(count: number): void {
    this.#limit = Math.min(this.#limit, count);
    for (const { slots } of this.#relays.values()) slots.shrinkTo(count);
  }

  stop(): void {
    this.use([], 0);
  }

  get idleCount(): number {
    return this.states.reduce((sum, { idle }) => sum + idle, 0);
  }

  get states(): RelayState[] {
    return [...this.#relays].map(([id, { url, slots }]) => ({
      id,
      url,
      idle: slots.idleCount,
      wanted: slots.count,
      state: slots.state,
      roundTripMs: slots.roundTripMs ?? null,
    }));
  }
}
