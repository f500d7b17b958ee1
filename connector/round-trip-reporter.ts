import type { RelayId } from '../protocol/index.ts';
import type { ControlLink } from './control-link.ts';
import { measureEveryMs } from './limits.ts';

/** A change smaller than this, or than a fifth, is not worth a message. */
const leastChangeMs = 2;
const leastChange = 0.2;

/** Round trips are known a moment after the first sockets stand. */
const firstAfterMs = 1_000;

export interface RoundTripReporterOptions {
  readonly states: () => readonly { readonly id: RelayId; readonly roundTripMs: number | null }[];
  readonly links: () => readonly Pick<ControlLink, 'send'>[];
}

/** Tells the control planes how far this connector is from each relay: at first, and when that has changed. */
export class RoundTripReporter {
  readonly #options: RoundTripReporterOptions;
  #told = new Map<RelayId, number>();
  #timers: NodeJS.Timeout[] = [];

  constructor(options: RoundTripReporterOptions) {
    this.#options = options;
  }

  start(): void {
    const look = () => {
      this.look();
    };
    this.#timers = [setTimeout(look, firstAfterMs), setInterval(look, measureEveryMs)];
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
  }

  /** Tells everyone if anything has changed by enough. */
  look(): void {
    const now = this.#measured();
    const hasChanged =
      now.size !== this.#told.size || [...now].some(([id, ms]) => isChange(this.#told.get(id), ms));
    if (!hasChanged) return;
    this.#told = now;
    for (const link of this.#options.links()) this.tell(link);
  }

  /** Tells one control plane what is known. */
  tell(link: Pick<ControlLink, 'send'>): void {
    if (this.#told.size > 0) link.send({ type: 'round_trips', relays: [...this.#told] });
  }

  #measured(): Map<RelayId, number> {
    return new Map(
      this.#options
        .states()
        .flatMap(({ id, roundTripMs }) =>
          roundTripMs === null ? [] : [[id, Math.round(roundTripMs)]],
        ),
    );
  }
}

function isChange(before: number | undefined, nowMs: number): boolean {
  if (before === undefined) return true;
  return Math.abs(nowMs - before) >= Math.max(leastChangeMs, before * leastChange);
}
