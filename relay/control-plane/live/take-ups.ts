import type { TunnelId } from '../../../protocol/index.ts';

/** Tells who waits when tunnels have a path again, or never will. */
export class TakeUps {
  readonly #waiting = new Map<TunnelId, Set<() => void>>();

  /** Calls `done` once it was noted of all of these. Answers how to wait no more. */
  whenNoted(tunnels: readonly TunnelId[], done: () => void): () => void {
    let left = new Set(tunnels).size;
    if (left === 0) done();
    const onNoted = (): void => {
      if (--left === 0) done();
    };
    for (const tunnel of new Set(tunnels)) {
      const waiting = this.#waiting.get(tunnel) ?? new Set();
      this.#waiting.set(tunnel, waiting.add(onNoted));
    }
    return () => {
      for (const tunnel of tunnels) {
        const waiting = this.#waiting.get(tunnel);
        waiting?.delete(onNoted);
        if (waiting?.size === 0) this.#waiting.delete(tunnel);
      }
    };
  }

  /** The tunnel has a path again. */
  note(tunnel: TunnelId): void {
    const waiting = this.#waiting.get(tunnel);
    this.#waiting.delete(tunnel);
    for (const onNoted of waiting ?? []) onNoted();
  }
}
