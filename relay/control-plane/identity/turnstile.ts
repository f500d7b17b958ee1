import { ZtnaError } from '../../../protocol/index.ts';

/** `urgent` is an administrator at work, or a user where he or she has been before: next in line and never refused, however many strangers wait. */
export type Urgency = 'usual' | 'urgent';

/** Lets so many tasks run at once and so many more wait, in order; the next is refused at once. */
export class Turnstile {
  readonly #maxAtOnce: number;
  readonly #maxWaiting: number;
  readonly #waiting: (() => void)[] = [];
  #running = 0;

  constructor(limits: { readonly maxAtOnce: number; readonly maxWaiting: number }) {
    this.#maxAtOnce = limits.maxAtOnce;
    this.#maxWaiting = limits.maxWaiting;
  }

  /** Runs `task` when its turn comes. Throws ERR_LIMIT_RATE when too many wait already. */
  async run<T>(task: () => Promise<T>, urgency: Urgency = 'usual'): Promise<T> {
    if (this.#running < this.#maxAtOnce) this.#running++;
    else if (urgency === 'urgent') {
      await new Promise<void>((resolve) => this.#waiting.unshift(resolve));
    } else if (this.#waiting.length >= this.#maxWaiting) {
      throw new ZtnaError('ERR_LIMIT_RATE', { reason: 'password_queue_full' });
    } else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      // The place goes to the next in line, if there is one.
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}
