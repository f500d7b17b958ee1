/** A moment at which one tunnel is due for verification, in control time. */
interface Entry {
  readonly tunnel: string;
  readonly atMs: number;
}

/** How far a tick may lie from the interval, as a part of it, so that tunnels opened together drift apart. */
const jitter = 0.25;

/** Others of its group whose next moment is no further away than this part of their interval come up with a tunnel. */
const gather = 0.25;

interface Planned {
  readonly group: string;
  readonly intervalMs: number;
  endMs: number;
  /** The jittered interval, and the next moment, which may come before it. */
  tickMs: number;
  atMs: number;
  /** Its next moment is no later than it was hastened to, whatever is confirmed meanwhile. */
  isHastened: boolean;
}

/**
 * Which tunnels to verify when. Pure: time comes in, due tunnels come out. Every tunnel has one next moment:
 * the earlier of its jittered interval and its known end (session, `--until`), which is a timer too. Tunnels of a group,
 * such as a device's, rest on the same facts and are told the same end: they come to be verified together.
 */
export class VerificationSchedule {
  readonly #random: () => number;
  readonly #heap: Entry[] = [];
  readonly #tunnels = new Map<string, Planned>();
  readonly #groups = new Map<string, Set<string>>();

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
  set(tunnel: string, intervalMs: number, endMs: number, nowMs: number, group = tunnel): void {
    this.delete(tunnel);
    const known = { group, intervalMs, endMs, tickMs: 0, atMs: 0, isHastened: false };
    this.#tunnels.set(tunnel, known);
    const mates = this.#groups.get(group);
    if (mates) mates.add(tunnel);
    else this.#groups.set(group, new Set([tunnel]));
    this.#plan(tunnel, known, nowMs, this.#random());
  }

  /** Notes a known end learned at a verification, which the next moment must not miss. */
  confirm(tunnel: string, endMs: number, nowMs: number): void {
    const known = this.#tunnels.get(tunnel);
    if (!known) return;
    known.endMs = endMs;
    if (!known.isHastened) this.#pushNext(tunnel, known, nowMs);
  }

  /** Makes a tunnel due at once: something it depends on may have changed. */
  hasten(tunnel: string, nowMs: number): void {
    const known = this.#tunnels.get(tunnel);
    if (!known) return;
    known.isHastened = true;
    if (known.atMs > nowMs) this.#push(tunnel, known, nowMs);
  }

  /** Plans a tunnel anew from `nowMs`: what made it due at once is of no use any more. */
  postpone(tunnel: string, nowMs: number): void {
    const known = this.#tunnels.get(tunnel);
    if (known) this.#plan(tunnel, known, nowMs, this.#random());
  }

  delete(tunnel: string): void {
    const known = this.#tunnels.get(tunnel);
    if (!known) return;
    this.#tunnels.delete(tunnel);
    const mates = this.#groups.get(known.group);
    mates?.delete(tunnel);
    if (mates?.size === 0) this.#groups.delete(known.group);
  }

  /**
   * The tunnels due at `nowMs`, oldest first, each with those of its group that are due soon, at most `limit`. Each is
   * planned again one interval ahead, so that one whose verification fails to finish comes up again.
   */
  takeDue(nowMs: number, limit: number): string[] {
    const due: string[] = [];
    while (due.length < limit) {
      const first = this.#first();
      if (!first || first.atMs > nowMs) break;
      const random = this.#random(); // one for all, so that they stay together
      const group = this.#tunnels.get(first.tunnel)?.group ?? first.tunnel;
      const mates = [...(this.#groups.get(group) ?? [])].filter(
        (tunnel) => tunnel !== first.tunnel,
      );
      for (const tunnel of [first.tunnel, ...mates]) {
        const known = this.#tunnels.get(tunnel);
        if (!known || due.length >= limit) break;
        // What is to be looked at at a moment of its own waits for that.
        const aheadMs = known.isHastened ? 0 : gather * known.intervalMs;
        if (known.atMs > nowMs + aheadMs) continue;
        due.push(tunnel);
        this.#plan(tunnel, known, nowMs, random);
      }
    }
    return due;
  }

  /** When the next tunnel is due, or undefined when there is none. */
  nextAtMs(): number | undefined {
    return this.#first()?.atMs;
  }

  /** `random` is a number in [0, 1). */
  #plan(tunnel: string, known: Planned, nowMs: number, random: number): void {
    const part = 1 - jitter + 2 * jitter * random;
    known.tickMs = nowMs + Math.round(known.intervalMs * part);
    known.isHastened = false;
    this.#pushNext(tunnel, known, nowMs);
  }

  #pushNext(tunnel: string, known: Planned, nowMs: number): void {
    const { tickMs, endMs, atMs } = known;
    // A known end that has passed already must not make the tunnel due for ever.
    const nextMs = endMs > nowMs ? Math.min(tickMs, endMs) : tickMs;
    if (nextMs !== atMs) this.#push(tunnel, known, nextMs);
  }

  #push(tunnel: string, known: Planned, atMs: number): void {
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
