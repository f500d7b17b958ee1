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
    return known && isSamePosture(known.facts, heard.facts) ? 'same' : 'changed';
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

/** True for the same facts. How one was found out may be told in other words each time. */
export function isSamePosture(a: DevicePosture, b: DevicePosture): boolean {
  return a === b || textOf(a) === textOf(b);
}

/** What was heard is compared at each verification of each tunnel. */
const texts = new WeakMap<DevicePosture, string>();

function textOf(posture: DevicePosture): string {
  const known = texts.get(posture);
  if (known !== undefined) return known;
  const { checks, ...rest } = posture;
  const text = JSON.stringify({ ...rest, checks: checks.map(([name, result]) => [name, result]) });
  texts.set(posture, text);
  return text;
}
