import { maxStreams, maxStreamsPerDevice } from './limits.ts';

/**
 * How many connections to apps there are, in all and of each device: each holds a descriptor and at least one window
 * of memory, so no device may hold them all, however many tunnels it has.
 */
export class StreamBudget {
  readonly #ofDevice = new Map<string, number>();
  readonly #max: number;
  readonly #maxPerDevice: number;
  #total = 0;

  constructor(limits: { readonly total?: number; readonly perDevice?: number } = {}) {
    this.#max = limits.total ?? maxStreams;
    this.#maxPerDevice = limits.perDevice ?? maxStreamsPerDevice;
  }

  get total(): number {
    return this.#total;
  }

  /** Takes a place; answers how to give it back (once or often), or undefined when there is none. */
  take(device: string): (() => void) | undefined {
    const held = this.#ofDevice.get(device) ?? 0;
    if (this.#total >= this.#max || held >= this.#maxPerDevice) return undefined;
    this.#total++;
    this.#ofDevice.set(device, held + 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#total--;
      const left = (this.#ofDevice.get(device) ?? 1) - 1;
      if (left > 0) this.#ofDevice.set(device, left);
      else this.#ofDevice.delete(device);
    };
  }
}
