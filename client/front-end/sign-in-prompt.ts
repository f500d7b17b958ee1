import { toZtnaError } from '../../protocol/index.ts';
import type { Agent } from '../agent/agent.ts';
import { signIn } from '../agent/sign-in.ts';

/** What a sign-in of the user mends, as tunnels are held back for it and as requests are refused for it. */
const mendedReasons: readonly string[] = ['step_up_needed', 'sign_in_needed'];
const mendedCodes: readonly string[] = ['ERR_IDENTITY_OTP_NEEDED', 'ERR_IDENTITY_SIGN_IN_NEEDED'];

/** How often a wrong answer is asked for again. */
const maxAttempts = 3;

/** The person at the terminal. Questions reject when they are not answered, or when the signal takes them back. */
export interface Person {
  askHidden(question: string, signal: AbortSignal): Promise<string>;
  askLine(question: string, signal: AbortSignal): Promise<string>;
  say(line: string): void;
}

type PromptedAgent = Pick<Agent, 'request' | 'heldBackFor' | 'onHeldBack' | 'identity'>;

/**
 * Asks the person to sign in when policy wants that, once for all tunnels of an agent: one question at a time, taken back
 * when another command has signed in meanwhile. Whoever gives up is not asked again before something else is wanted.
 */
export class SignInPrompt {
  readonly #agent: PromptedAgent;
  readonly #person: Person;
  readonly #signal: AbortSignal;
  #running: Promise<boolean> | undefined;
  #takeBack = new AbortController();
  /** The present need was met with an answer, or with none. */
  #isSettled = false;
  /** Requests that wait for the sign-in, which nobody can tell to have become needless. */
  #requests = 0;

  /** Begins to watch the agent's tunnels. Asks nothing any more once the signal has aborted. */
  constructor(agent: PromptedAgent, person: Person, signal: AbortSignal) {
    this.#agent = agent;
    this.#person = person;
    this.#signal = signal;
    agent.onHeldBack = () => {
      this.#review();
    };
  }

  /** Asks; where the answer is that a sign-in would mend it, has the person sign in and asks once more. Throws the refusal. */
  async retry<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask();
    } catch (thrown) {
      const error = toZtnaError(thrown);
      const hasGivenUp = this.#isSettled && !this.#running;
      if (!mendedCodes.includes(error.code) || hasGivenUp || this.#signal.aborted) throw error;
      this.#person.say(`${error.message} [${error.code}]`);
      this.#requests += 1;
      const isSignedIn = await this.#ask(error.code === 'ERR_IDENTITY_OTP_NEEDED').finally(() => {
        this.#requests -= 1;
      });
      if (!isSignedIn) throw error;
      return ask();
    }
  }

  #review(): void {
    const needed = mendedReasons.filter((reason) => this.#agent.heldBackFor.has(reason));
    if (needed.length === 0) {
      this.#isSettled = false;
      if (this.#requests === 0) this.#takeBack.abort();
    } else if (!this.#isSettled && !this.#signal.aborted) {
      void this.#ask(needed.includes('step_up_needed'));
    }
  }

  /** Answers whether the user signed in, or had done so elsewhere. */
  async #ask(isStepUp: boolean): Promise<boolean> {
    this.#running ??= this.#begin(isStepUp).finally(() => {
      this.#running = undefined;
      this.#review(); // what is wanted may have come and gone while the last answer was given
    });
    return this.#running;
  }

  async #begin(isStepUp: boolean): Promise<boolean> {
    this.#takeBack = new AbortController();
    const { signal: takenBack } = this.#takeBack;
    const signal = AbortSignal.any([takenBack, this.#signal]);
    this.#isSettled = true;
    try {
      if (isStepUp && (await this.#hasNoOtp())) {
        this.#person.say('set a one-time password up first: ztna mfa add; then: ztna login');
        return false;
      }
      return await this.#signIn(signal);
    } catch (thrown) {
      if (takenBack.aborted) {
        this.#person.say('no answer is needed any more');
        return true;
      }
      const { code, message } = toZtnaError(thrown);
      if (this.#signal.aborted) return false;
      this.#person.say(`${message} [${code}]; to sign in later: ztna login`);
      return false;
    }
  }

  /** True for a user who cannot step up; false too where that cannot be said. */
  async #hasNoOtp(): Promise<boolean> {
    return this.#agent.request({ type: 'otp_list' }).then(
      ({ enabled }) => !enabled,
      () => false,
    );
  }

  /** Throws when there was no answer, or none that counts. */
  async #signIn(signal: AbortSignal): Promise<boolean> {
    const person = this.#person;
    const user = this.#agent.identity.profile['user'] ?? (await person.askLine('user', signal));
    for (let attempt = 1; ;) {
      const password = await person.askHidden(`password of ${user} (Ctrl-D: not now): `, signal);
      if (password === '') continue; // a key that was pressed before the question came
      try {
        const askOtp = (): Promise<string> => person.askLine('one-time password', signal);
        await signIn(this.#agent, { user, password, otp: null, askOtp });
        person.say(`signed in as ${user}`);
        return true;
      } catch (thrown) {
        const error = toZtnaError(thrown);
        if (error.code !== 'ERR_IDENTITY_SIGN_IN_REFUSED' || attempt++ >= maxAttempts) throw error;
        person.say(error.message);
      }
    }
  }
}
