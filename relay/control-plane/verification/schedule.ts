/** A moment at which one tunnel is due for verification, in control time. */
interface Entry {
  readonly tunnel: string;
  readonly atMs: number;
}

/** How far a tick may lie from the interval, as a part of it, so that tunnels opened together drift apart. */
const jitter = 0.25;

/**
 * Which tunnels to verify when. Pure: time comes in, due tunnels come out. Every tunnel has one next moment:
 * the earlier of its jittered interval and its known end (session, `--until`), which is a timer too.
 */
export class VerificationSchedule {
  readonly #random: () => number;
  readonly #heap: Entry[] = [];
  readonly #tunnels = new Map<string, { intervalMs: number; endMs: number; atMs: number }>();

  /** `random` answers a number in [0, 1). */
  constructor(random: () => number) {
    this.#random = random;
  }

  has(tunnel: string): boolean {
    return this.#tunnels.has(tunnel);
  }

  get size(): number {
    return this.#tunnels.size;
  }

  /** Adds a tunnel, or replaces what is known of it. `endMs` is its known end, Infinity for none. */
  set(tunnel: string, intervalMs: number, endMs: number, nowMs: number): void {
    this.#tunnels.set(tunnel, { intervalMs, endMs, atMs: 0 });
    this.#plan(tunnel, nowMs);
  }

  /** Notes a known end learned at a verification; the next moment is planned anew from `nowMs`. */
  confirm(tunnel: string, endMs: number, nowMs: number): void {
    const known = this.#tunnels.get(tunnel);
    if (!known) return;
    known.endMs = endMs;
    this.#plan(tunnel, nowMs);
  }

  /** Makes a tunnel due at once: something it depends on may have changed. */
  hasten(tunnel: string, nowMs: number): void {
    const known = this.#tunnels.get(tunnel);
    if (known && known.atMs > nowMs) this.#push(tunnel, nowMs);
  }

  /** Plans a tunnel anew from `nowMs`: what made it due at once is of no use any more. */
  postpone(tunnel: string, nowMs: number): void {
    this.#plan(tunnel, nowMs);
  }

  delete(tunnel: string): void {
    this.#tunnels.delete(tunnel);
  }

  /**
   * The tunnels due at `nowMs`, oldest first, at most `limit`. Each is planned again one interval ahead, so that
   * one whose verification fails to finish comes up again.
   */
  takeDue(nowMs: number, limit: number): string[] {
    const due: string[] = [];
    while (due.length < limit) {
      const first = this.#first();
      if (!first || first.atMs > nowMs) break;
      this.#pop();
      due.push(first.tunnel);
      this.#plan(first.tunnel, nowMs);
    }
    return due;
  }

  /** When the next tunnel is due, or undefined when there is none. */
  nextAtMs(): number | undefined {
    return this.#first()?.atMs;
  }

  #plan(tunnel: string, nowMs: number): void {
    const known = this.#tunnels.get(tunnel);
    if (!known) return;
    const part = 1 - jitter + 2 * jitter * this.#random();
    const tickMs = nowMs + Math.round(known.intervalMs * part);
    // A known end that has passed already must not make the tunnel due for ever.
    this.#push(tunnel, known.endMs > nowMs ? Math.min(tickMs, known.endMs) : tickMs);
  }

  #push(tunnel: string, atMs: number): void {
    const known = this.#tunnels.get(tunnel);
    if (!known) return;
    known.atMs = atMs;
    const heap = this.#heap;
    let index = heap.length;
    const entry = { tunnel, atMs };
    heap.push(entry);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent];
      if (!above || above.atMs <= atMs) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = entry;
  }

  /** The first entry that still stands; superseded ones are dropped on the way. */
  #first(): Entry | undefined {
    for (;;) {
      const first = this.#heap[0];
      if (!first || this.#tunnels.get(first.tunnel)?.atMs === first.atMs) return first;
      this.#pop();
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (!last || heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      const right = heap[child + 1];
      const left = heap[child];
      if (!left) break;
      if (right && right.atMs < left.atMs) child++;
      const below = heap[child];
      if (!below || below.atMs >= last.atMs) break;
      heap[index] = below;
      index = child;
    }
    heap[index] = last;
  }
}
