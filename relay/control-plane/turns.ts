import { ZtnaError } from '../../protocol/index.ts';

export interface TurnLimits {
  readonly atOnce: number;
  /** How many more may wait for their turn. */
  readonly waiting: number;
  /** For how long; whoever dials gives up not much later. */
  readonly waitMs: number;
}

interface Waiter {
  readonly begin: () => void;
}

/**
 * Some at a time, first come, first served: those whose turn it is are soon through, where all at once would wait for
 * one another until they give up. Beyond a bound it is better to send the others away, to come back spread over seconds.
 */
export class Turns {
  readonly #limits: TurnLimits;
  readonly #waiting = new Set<Waiter>();
  #count = 0;
  #isHeld = false;

  constructor(limits: TurnLimits) {
    this.#limits = limits;
  }

  /**
   * Waits for a turn and answers what ends it, harmless to call twice. Throws
   * ERR_LIMIT_RATE when too many wait or it takes too long, and the reason of `gone` once whoever it is for has left.
   */
  async begin(gone: AbortSignal): Promise<() => void> {
    gone.throwIfAborted();
    if (this.#isHeld || this.#count >= this.#limits.atOnce) await this.#turn(gone);
    else this.#count++;
    let isOver = false;
    return () => {
      if (!isOver) this.#next();
      isOver = true;
    };
  }

  /** Begins no turn until `release`. */
  hold(): void {
    this.#isHeld = true;
  }

  release(): void {
    this.#isHeld = false;
    for (const waiter of [...this.#waiting].slice(0, this.#limits.atOnce - this.#count)) {
      this.#count++;
      waiter.begin();
    }
  }

  #turn(gone: AbortSignal): Promise<undefined> {
    if (this.#waiting.size >= this.#limits.waiting) throw overloaded();
    const { promise, resolve, reject } = Promise.withResolvers<undefined>();
    const settle = (): void => {
      clearTimeout(timer);
      gone.removeEventListener('abort', leave);
      this.#waiting.delete(waiter);
    };
    const leave = (): void => {
      settle();
      reject(gone.reason as Error);
    };
    const waiter: Waiter = {
      begin: () => {
        settle();
        resolve(undefined);
      },
    };
    const timer = setTimeout(() => {
      settle();
      reject(overloaded());
    }, this.#limits.waitMs);
    gone.addEventListener('abort', leave, { once: true });
    this.#waiting.add(waiter);
    return promise;
  }

  /** Hands the place on to whoever has waited longest. */
  #next(): void {
    const [first] = this.#waiting;
    if (first && !this.#isHeld) first.begin();
    else this.#count--;
  }
}

function overloaded(): ZtnaError {
  return new ZtnaError('ERR_LIMIT_RATE', { hop: 'relay', reason: 'overloaded' });
}
