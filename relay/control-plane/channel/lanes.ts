/**
 * Work by what it is about: what concerns the same is done in order, and what does not at the same time, so that the
 * reports of one peer on many tunnels can share a commit.
 */
export class Lanes {
  readonly #most: number;
  readonly #onError: (error: unknown) => void;
  readonly #last = new Map<string, Promise<void>>();
  readonly #running = new Set<Promise<void>>();

  /** At most so many at the same time; `onError` hears what any work failed with. */
  constructor(most: number, onError: (error: unknown) => void) {
    this.#most = most;
    this.#onError = onError;
  }

  /** Begins the work once nothing is left to do in its lane. Resolves when there is room for more; never rejects. */
  async run(lane: string, work: () => Promise<void>): Promise<void> {
    const done = (this.#last.get(lane) ?? Promise.resolve())
      .then(work)
      .catch(this.#onError)
      .then(() => {
        this.#running.delete(done);
        if (this.#last.get(lane) === done) this.#last.delete(lane);
      });
    this.#last.set(lane, done);
    this.#running.add(done);
    while (this.#running.size >= this.#most) await Promise.race(this.#running);
  }

  /** Resolves when nothing is left to do. */
  async idle(): Promise<void> {
    await Promise.all(this.#running);
  }
}
