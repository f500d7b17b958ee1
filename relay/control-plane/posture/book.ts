import type { DeviceId, DevicePosture } from '../../../protocol/index.ts';

/** What a device said of itself, and when it had found that out, in control time. */
export interface HeardPosture {
  readonly facts: DevicePosture;
  readonly atMs: number;
}

/** The newest posture of each device that this process has heard of, whatever channel it came by. */
export class PostureBook {
  readonly #newest = new Map<DeviceId, HeardPosture>();

  /** Takes what was heard, unless something newer is known; answers whether the facts are others than before. */
  note(device: DeviceId, heard: HeardPosture): 'older' | 'same' | 'changed' {
    const known = this.#newest.get(device);
    if (known && known.atMs > heard.atMs) return 'older';
    this.#newest.set(device, heard);
    return known && isSame(known.facts, heard.facts) ? 'same' : 'changed';
  }

  newest(device: DeviceId): HeardPosture | undefined {
    return this.#newest.get(device);
  }

  /** Forgets what is older than `atMs`: nobody goes by it, and the store has it. */
  forgetBefore(atMs: number): void {
    for (const [device, heard] of this.#newest) {
      if (heard.atMs < atMs) this.#newest.delete(device);
    }
  }
}

/** How a fact was found out may be told in other words each time. */
function isSame(a: DevicePosture, b: DevicePosture): boolean {
  return JSON.stringify(comparable(a)) === JSON.stringify(comparable(b));
}

function comparable({ checks, ...rest }: DevicePosture): unknown {
  return { ...rest, checks: checks.map(([name, result]) => [name, result]) };
}
