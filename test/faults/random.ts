import { createHash } from 'node:crypto';

/** Random numbers that one seed always makes again. */
export class Random {
  readonly #seed: string;
  #count = 0;

  constructor(seed: string) {
    this.#seed = seed;
  }

  /** From 0 to below 1. */
  next(): number {
    const digest = createHash('sha256').update(`${this.#seed}:${this.#count++}`).digest();
    return digest.readUIntBE(0, 6) / 2 ** 48;
  }

  between(least: number, most: number): number {
    return least + this.next() * (most - least);
  }

  pick<T>(choices: readonly [T, ...T[]]): T;
  pick<T>(choices: readonly T[]): T | undefined;
  pick<T>(choices: readonly T[]): T | undefined {
    return choices[Math.floor(this.next() * choices.length)];
  }
}
