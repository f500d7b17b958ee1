const leastSlots = 16;

/** An empty queue keeps no more room than this. */
const mostEmptySlots = 1_024;

/**
 * A first-in, first-out queue whose operations take constant time.
 *
 * It forgets at once what has left it. A queue lives long, so young collections take its array for alive, and also one
 * that it has already given up: whatever still stood there would be kept until a full collection.
 */
export class Fifo<T> {
  #slots: (T | undefined)[] = [];
  #first = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(item: T): void {
    if (this.#length === this.#slots.length) this.#grow();
    this.#slots[this.#slotOf(this.#length)] = item;
    this.#length++;
  }

  peek(): T | undefined {
    return this.at(0);
  }

  /** The item that so many others are ahead of. */
  at(index: number): T | undefined {
    return index < this.#length ? this.#slots[this.#slotOf(index)] : undefined;
  }

  shift(): T | undefined {
    if (this.#length === 0) return undefined;
    const item = this.#slots[this.#first];
    this.#slots[this.#first] = undefined;
    this.#first = this.#slotOf(1);
    this.#length--;
    if (this.#length === 0 && this.#slots.length > mostEmptySlots) this.clear();
    return item;
  }

  /** Takes the item away that was added last. */
  pop(): T | undefined {
    if (this.#length === 0) return undefined;
    this.#length--;
    const slot = this.#slotOf(this.#length);
    const item = this.#slots[slot];
    this.#slots[slot] = undefined;
    return item;
  }

  clear(): void {
    this.#slots.fill(undefined);
    this.#slots = [];
    this.#first = 0;
    this.#length = 0;
  }

  /** The number of slots is a power of two. */
  #slotOf(index: number): number {
    return (this.#first + index) & (this.#slots.length - 1);
  }

  #grow(): void {
    const before = this.#slots;
    const slots = new Array<T | undefined>(Math.max(leastSlots, 2 * before.length));
    slots.fill(undefined);
    for (let index = 0; index < this.#length; index++) slots[index] = this.at(index);
    before.fill(undefined);
    this.#slots = slots;
    this.#first = 0;
  }
}
