import { ZtnaError } from '../../../protocol/index.ts';

/**
 * Where in line a task stands: an administrator at work before all others, then users where they have been before, then
 * everybody else. Among equals the first to come is the first to go.
 */
export type Place =
  | { readonly priority: 'admin' }
  /** `of` is the account. Of one account one such task runs at a time, however many known browsers it made for itself. */
  | { readonly priority: 'known'; readonly of: string }
  | { readonly priority: 'usual' };

export interface TurnstileLimits {
  readonly maxAtOnce: number;
  readonly maxWaiting: number;
  readonly maxWaitingKnown: number;
  /** Of these, of one account. */
  readonly maxWaitingOfOne: number;
}

interface Known {
  readonly of: string;
  readonly begin: () => void;
}

/** Lets so many tasks run at once and so many more wait, in order; the next is refused at once, unless it is an administrator's. */
export class Turnstile {
  readonly #limits: TurnstileLimits;
  readonly #admins: (() => void)[] = [];
  readonly #known: Known[] = [];
  readonly #usual: (() => void)[] = [];
  /** The accounts whose `known` task runs. */
  readonly #busy = new Set<string>();
  #running = 0;

  constructor(limits: TurnstileLimits) {
    this.#limits = limits;
  }

  /** Runs `task` when its turn comes. Throws ERR_LIMIT_RATE when too many wait already. */
  async run<T>(task: () => Promise<T>, place: Place = { priority: 'usual' }): Promise<T> {
    await this.#enter(place);
    try {
      return await task();
    } finally {
      if (place.priority === 'known') this.#busy.delete(place.of);
      this.#running--;
      this.#letIn();
    }
  }

  /** Resolves when its turn has come; whoever let it in has counted it. */
  #enter(place: Place): Promise<void> {
    const entered = Promise.withResolvers<undefined>();
    const begin = () => {
      entered.resolve(undefined);
    };
    // In line first, also where there is room: a task that may go at once is let in before the line is measured.
    if (place.priority === 'admin') this.#admins.push(begin);
    else if (place.priority === 'known') this.#known.push({ of: place.of, begin });
    else this.#usual.push(begin);
    this.#letIn();
    if (this.#isOverfull(place)) {
      if (place.priority === 'known') this.#known.pop();
      else this.#usual.pop();
      throw new ZtnaError('ERR_LIMIT_RATE', { reason: 'password_queue_full' });
    }
    return entered.promise;
  }

  #isOverfull(place: Place): boolean {
    if (place.priority === 'admin') return false;
    if (place.priority === 'usual') return this.#usual.length > this.#limits.maxWaiting;
    const own = this.#known.filter(({ of }) => of === place.of);
    return (
      own.length > this.#limits.maxWaitingOfOne || this.#known.length > this.#limits.maxWaitingKnown
    );
  }

  #letIn(): void {
    while (this.#running < this.#limits.maxAtOnce) {
      const begin = this.#admins.shift() ?? this.#nextKnown() ?? this.#usual.shift();
      if (!begin) return;
      this.#running++;
      begin();
    }
  }

  #nextKnown(): (() => void) | undefined {
    const index = this.#known.findIndex(({ of }) => !this.#busy.has(of));
    const [next] = index < 0 ? [] : this.#known.splice(index, 1);
    if (next) this.#busy.add(next.of);
    return next?.begin;
  }
}
