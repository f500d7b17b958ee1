import { ZtnaError } from '../../../protocol/index.ts';

/**
 * How many devices are being greeted at once, from their upgrade to the welcome. Each takes work in the store; beyond a
 * bound it is better to send the others away at once, to come back spread over seconds, than to let all of them wait
 * until they give up.
 */
export class Greetings {
  readonly #most: number;
  #count = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** Answers what ends this greeting, harmless to call twice. Throws ERR_LIMIT_RATE when there is no room for it. */
  begin(): () => void {
    if (this.#count >= this.#most) {
      throw new ZtnaError('ERR_LIMIT_RATE', { hop: 'relay', reason: 'overloaded' });
    }
    this.#count++;
    let isOver = false;
    return () => {
      if (!isOver) this.#count--;
      isOver = true;
    };
  }
}
