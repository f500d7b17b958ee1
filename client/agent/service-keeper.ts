import { toZtnaError, type SessionFacts } from '../../protocol/index.ts';
import { fullJitterDelayMs, type ControlClock, type Logger } from '../../protocol/host/index.ts';
import type { Agent } from './agent.ts';
import { signInService, type ServiceAccount } from './service-account.ts';

/** The part of a session's life that is left when it is renewed; where it lies in between is left to chance. */
const renewAtShare = 0.25;
const spreadShare = 0.15;

/** After a failure the next try comes within this time, and later each time up to the other. */
const retryBaseMs = 5_000;
const retryMaxMs = 60_000;

/** Several commands of one machine hear of the same end: the first to come signs in for all. */
const renewWithinMs = 1_000;

/** Whoever asks for it, a service signs in no more often. */
const atMostEveryMs = 5_000;

export interface ServiceKeeperOptions {
  readonly account: ServiceAccount;
  readonly agent: Pick<Agent, 'request'>;
  readonly clock: Pick<ControlClock, 'nowMs'>;
  readonly logger: Logger;
  /** Ends it. */
  readonly signal: AbortSignal;
}

/** Keeps a service signed in for as long as its agent runs, well before each session's end. Asks nobody anything. */
export class ServiceKeeper {
  readonly #options: ServiceKeeperOptions;
  #signingIn: Promise<SessionFacts> | undefined;
  #lastAtMs = -Infinity;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;

  constructor(options: ServiceKeeperOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => {
      clearTimeout(this.#timer);
    });
  }

  /** Signs in where nobody is, and begins to renew. Never throws: what needs the session is refused for the lack of it. */
  async start(session: SessionFacts | null): Promise<void> {
    await this.#keep(session);
  }

  /**
   * Signs in in a moment, unless another command of this machine is faster: the session has ended, or policy wants a fresh
   * one.
   */
  renew(): void {
    const wantedAtMs = this.#nowMs();
    const earliestMs = this.#lastAtMs + atMostEveryMs - performance.now();
    const spreadMs = fullJitterDelayMs(0, { baseMs: renewWithinMs });
    this.#after(Math.max(earliestMs, 0) + spreadMs, async () => {
      const session = await this.#look();
      await this.#keep(session && session.signedInAtMs >= wantedAtMs ? session : null);
    });
  }

  /** What `ask` answers; where it is refused for want of a sign-in, signs in and asks once more. */
  async retry<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask();
    } catch (error) {
      if (toZtnaError(error).code !== 'ERR_IDENTITY_SIGN_IN_NEEDED') throw error;
      await this.#signIn();
      return ask();
    }
  }

  async #keep(known: SessionFacts | null): Promise<void> {
    const { logger, account, signal } = this.#options;
    if (signal.aborted) return;
    try {
      const session = this.#isDue(known) ? await this.#signIn() : known;
      this.#failures = 0;
      const waitMs = this.#leftMs(session) - lifeMs(session) * renewAtShare;
      const spreadMs = lifeMs(session) * spreadShare;
      const jitterMs = fullJitterDelayMs(0, { baseMs: spreadMs, capMs: spreadMs });
      this.#after(waitMs - jitterMs, () => this.#review());
    } catch (error) {
      const { code, reason, message } = toZtnaError(error);
      logger.warn('service_sign_in_failed', {
        service: account.service,
        code,
        reason: reason ?? null,
        error: message,
      });
      const bounds = { baseMs: retryBaseMs, capMs: retryMaxMs };
      this.#after(fullJitterDelayMs(this.#failures, bounds), () => this.#review());
      this.#failures += 1;
    }
  }

  async #review(): Promise<void> {
    await this.#keep(await this.#look());
  }

  /** The session as it is: another command of this machine may have renewed it. */
  async #look(): Promise<SessionFacts | null> {
    const answer = await this.#options.agent.request({ type: 'status' }).catch(() => undefined);
    return answer?.session ?? null;
  }

  #isDue(session: SessionFacts | null): session is null {
    return (
      session === null || this.#leftMs(session) <= lifeMs(session) * (renewAtShare + spreadShare)
    );
  }

  #leftMs({ untilMs }: SessionFacts): number {
    return untilMs - this.#nowMs();
  }

  #nowMs(): number {
    return this.#options.clock.nowMs() ?? Date.now();
  }

  /** One at a time, for all who want it. */
  #signIn(): Promise<SessionFacts> {
    const { agent, account } = this.#options;
    this.#lastAtMs = performance.now();
    this.#signingIn ??= signInService(agent, account).finally(() => {
      this.#signingIn = undefined;
    });
    return this.#signingIn;
  }

  #after(delayMs: number, then: () => Promise<void>): void {
    clearTimeout(this.#timer);
    if (this.#options.signal.aborted) return;
    this.#timer = setTimeout(() => void then(), Math.max(delayMs, 0));
    this.#timer.unref(); // to stay signed in is no reason to stay
  }
}

function lifeMs({ untilMs, signedInAtMs }: SessionFacts): number {
  return untilMs - signedInAtMs;
}
