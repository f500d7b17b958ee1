import { toZtnaError } from '../../protocol/index.ts';
import type { Agent } from '../agent/agent.ts';
import { signIn } from '../agent/sign-in.ts';

/** What a sign-in of the user mends, as tunnels are held back for it and as requests are refused for it. */
const mendedReasons: readonly string[] = ['passkey_needed', 'step_up_needed', 'sign_in_needed'];
const mendedCodes: readonly string[] = ['ERR_IDENTITY_OTP_NEEDED', 'ERR_IDENTITY_SIGN_IN_NEEDED'];

/** How often a wrong answer is asked for again. */
const maxAttempts = 3;

/** What a sign-in has to be: fresh, with a second factor, with a passkey. */
type Need = 'sign_in' | 'step_up' | 'passkey';

/** The person at the terminal. Questions reject when they are not answered, or when the signal takes them back. */
export interface Person {
  /** Whether questions can be asked here and now; standard input may belong to an app. */
  canType(): boolean;
  askHidden(question: string, signal: AbortSignal): Promise<string>;
  askLine(question: string, signal: AbortSignal): Promise<string>;
  say(line: string): void;
  /** Where the user of this machine signed in the last time; undefined where nobody knows. */
  usualProvider(): Promise<string | undefined>;
  /** Has the person sign in on a page, at that provider. Answers whether that was done, be it in another command's browser. */
  browse(
    what: { readonly isStepUp: boolean; readonly provider: string },
    signal: AbortSignal,
  ): Promise<boolean>;
}

type PromptedAgent = Pick<
  Agent,
  'request' | 'heldBackFor' | 'onHeldBack' | 'identity' | 'knowsIdentity'
>;

/** The factors that the user has set up. */
interface Factors {
  readonly otp: boolean;
  readonly hasPasskey: boolean;
}

/**
 * Asks the person to sign in when policy wants that, once for all tunnels of an agent: on the terminal where a password of the relay's
 * own is all that is needed, else on a page; one question at a time, taken back when another command has signed in meanwhile. Whoever
 * gives up is not asked again before something else is wanted.
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

  /** Asks for the app; where the answer is that a sign-in would mend it, has the person sign in and asks once more. Throws the refusal. */
  async retry<T>(app: string, ask: () => Promise<T>): Promise<T> {
    try {
      return await ask();
    } catch (thrown) {
      const error = toZtnaError(thrown);
      const hasGivenUp = this.#isSettled && !this.#running;
      if (!mendedCodes.includes(error.code) || hasGivenUp || this.#signal.aborted) throw error;
      this.#person.say(`${error.message} [${error.code}]`);
      this.#requests += 1;
      const isStepUp = error.code === 'ERR_IDENTITY_OTP_NEEDED';
      const isSignedIn = await this.#ask(async () =>
        isStepUp ? this.#strengthFor(app) : 'sign_in',
      ).finally(() => {
        this.#requests -= 1;
      });
      if (!isSignedIn) throw error;
      return ask();
    }
  }

  #review(): void {
    const [need] = mendedReasons.filter((reason) => this.#agent.heldBackFor.has(reason));
    if (need === undefined) {
      this.#isSettled = false;
      if (this.#requests === 0) this.#takeBack.abort();
    } else if (!this.#isSettled && !this.#signal.aborted) {
      void this.#ask(() => Promise.resolve(need.replace('_needed', '') as Need));
    }
  }

  /** Answers whether the user signed in, or had done so elsewhere. */
  async #ask(findNeed: () => Promise<Need>): Promise<boolean> {
    this.#running ??= this.#begin(findNeed).finally(() => {
      this.#running = undefined;
      this.#review(); // what is wanted may have come and gone while the last answer was given
    });
    return this.#running;
  }

  async #begin(findNeed: () => Promise<Need>): Promise<boolean> {
    this.#takeBack = new AbortController();
    const { signal: takenBack } = this.#takeBack;
    const signal = AbortSignal.any([takenBack, this.#signal]);
    this.#isSettled = true;
    try {
      return await this.#meet(await findNeed(), signal);
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

  /** Has the person sign in where that need can be met. */
  async #meet(need: Need, signal: AbortSignal): Promise<boolean> {
    const person = this.#person;
    const session = await this.#agent.request({ type: 'status' }).then(
      (status) => status.session,
      () => null,
    );
    const provider = session?.provider ?? (session ? undefined : await person.usualProvider());
    const isLocal = provider === undefined || provider === 'local';
    // Whoever signed in with a passkey does so again.
    const canType = person.canType() && session?.methods.includes('passkey') !== true;
    if (isLocal && need !== 'sign_in') {
      const { otp, hasPasskey } = await this.#factors();
      if (need === 'passkey' && !hasPasskey) {
        person.say('add a passkey first: ztna mfa add --passkey; then: ztna login --browser');
        return false;
      }
      if (!otp && !hasPasskey) {
        person.say('set a one-time password up first: ztna mfa add; then: ztna login');
        return false;
      }
      if (need === 'step_up' && otp && canType) return this.#signIn(signal);
    } else if (isLocal && canType) return this.#signIn(signal);
    const what = { isStepUp: need !== 'sign_in', provider: provider ?? 'local' };
    if (this.#agent.knowsIdentity && (await person.browse(what, signal))) return true;
    person.say('to sign in, run: ztna login');
    return false;
  }

  /** What a refused app asks for: of a passkey the conditions tell. */
  async #strengthFor(app: string): Promise<Need> {
    return this.#agent.request({ type: 'why', app }).then(
      ({ conditions }) =>
        conditions.some(({ what, met }) => what === 'authentication.phishing_resistant' && !met)
          ? 'passkey'
          : 'step_up',
      () => 'step_up',
    );
  }

  /** What the user could step up with; where that cannot be said, as if there were a one-time password. */
  async #factors(): Promise<Factors> {
    if (this.#agent.knowsIdentity) {
      const told = await this.#agent.request({ type: 'factors' }).catch(() => undefined);
      if (told) return { otp: told.otp, hasPasskey: told.passkeys.length > 0 };
    }
    return this.#agent.request({ type: 'otp_list' }).then(
      ({ enabled }) => ({ otp: enabled, hasPasskey: false }),
      () => ({ otp: true, hasPasskey: false }),
    );
  }

  /** On this terminal, with a password. Throws when there was no answer, or none that counts. */
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
