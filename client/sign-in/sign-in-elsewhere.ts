import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { errorRow, toZtnaError, ZtnaError, type SessionFacts } from '../../protocol/index.ts';
import { abortError } from '../../protocol/host/index.ts';
import type { Agent } from '../agent/agent.ts';
import type { Answer } from '../agent/agent-messages.ts';
import { donePage, type AnswerPage } from './answer-page.ts';
import { Loopback, type Arrival } from './loopback.ts';
import { openInBrowser, type Browser } from './open-browser.ts';

/** How often what was typed in place of a ticket is asked for again. */
const maxAttempts = 3;

const ticketPattern = /^[A-Za-z0-9_-]{43}$/;

/** What the person has to do now, to be shown: `userCode` is typed at `url`; without a browser here the page ends with a ticket. */
export interface SignInInvitation {
  readonly url: string;
  readonly userCode: string | null;
  /** Whether a browser of this machine was started for it. */
  readonly isOpened: boolean;
  readonly expiresAtMs: number;
}

export interface ElsewhereOptions {
  /** `device_code`: at the provider's own page, on whatever machine. */
  readonly method: 'browser' | 'device_code';
  readonly provider: string | null; // null: the person chooses on the page
  /** Whether a fresh sign-in with all that the user has is asked for. */
  readonly isStepUp: boolean;
  /** This machine's browser; without one the person uses another machine's, and types the ticket that the page ends with. */
  readonly browser: Browser | undefined;
  readonly invite: (invitation: SignInInvitation) => void;
  /** Asks for the ticket that the page ends with. */
  readonly askTicket: (signal: AbortSignal) => Promise<string>;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

type SignInAgent = Pick<Agent, 'request'>;

/**
 * Signs the user in where a password is not typed into this terminal. What the browser brings counts only together with a
 * verifier that never leaves this process before. Throws what the sign-in was refused with, and as `abortError` once the signal
 * aborts.
 */
export async function signInElsewhere(
  agent: SignInAgent,
  options: ElsewhereOptions,
): Promise<SessionFacts> {
  const { method, browser } = options;
  const isHere = method === 'browser' && browser !== undefined;
  let expected: string | undefined;
  const loopback = isHere
    ? await Loopback.listen((query) => {
        const ticket = query.get('ticket') ?? '';
        const isOurs = expected !== undefined && query.get('sign_in') === expected;
        return isOurs && ticketPattern.test(ticket) ? ticket : undefined;
      })
    : undefined;
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, over.signal]);
  const polling = new AbortController();
  try {
    const verifier = randomBytes(32).toString('base64url');
    const started = await agent.request({
      type: 'sign_in_begin',
      method,
      provider: options.provider,
      challenge: createHash('sha256').update(verifier).digest('base64url'),
      loopbackPort: loopback?.port ?? null,
      isStepUp: options.isStepUp,
    });
    expected = started.signIn;
    const isOpened = isHere && (await openInBrowser(browser, started.url));
    const { url, userCode, expiresAtMs } = started;
    options.invite({ url, userCode, isOpened, expiresAtMs });
    const attempt: Attempt = { agent, started, verifier, signal, polling };
    const ways = [untilOver(attempt), untilAborted(attempt, options.signal)];
    if (loopback) ways.push(loopback.arrived.then(async (arrival) => finish(attempt, arrival)));
    else if (method === 'browser') ways.push(finishTyped(attempt, options));
    return await Promise.race(ways);
  } finally {
    over.abort();
    polling.abort();
    loopback?.close();
  }
}

interface Attempt {
  readonly agent: SignInAgent;
  readonly started: Answer<'sign_in_begin'>;
  readonly verifier: string;
  readonly signal: AbortSignal;
  /** Aborts once something was brought: what comes of that is the result, and nothing else. */
  readonly polling: AbortController;
}

async function redeem(
  { agent, started, verifier }: Attempt,
  ticket: string | null,
): Promise<SessionFacts> {
  const { signIn } = started;
  return (await agent.request({ type: 'sign_in_finish', signIn, ticket, verifier })).session;
}

/** Takes what the browser brought, and has it say how that ended. */
async function finish(attempt: Attempt, arrival: Arrival<string>): Promise<SessionFacts> {
  attempt.polling.abort();
  try {
    const session = await redeem(attempt, arrival.brought);
    await arrival.answer(donePage);
    return session;
  } catch (thrown) {
    await arrival.answer(failedPage(toZtnaError(thrown)));
    throw thrown;
  }
}

function failedPage({ message, code }: ZtnaError): AnswerPage {
  return { status: 400, title: 'You are not signed in', text: `${message} [${code}]` };
}

async function finishTyped(attempt: Attempt, options: ElsewhereOptions): Promise<SessionFacts> {
  for (let left = maxAttempts; ;) {
    const typed = (await options.askTicket(attempt.signal)).trim();
    left -= 1;
    if (ticketPattern.test(typed)) {
      attempt.polling.abort();
      return redeem(attempt, typed);
    }
    const message = 'that is not the ticket that the page shows at the end';
    if (left === 0) throw new ZtnaError('ERR_IDENTITY_SIGN_IN_REFUSED', { message, hop: 'client' });
    options.say(message);
  }
}

/** Asks whether the person is done; only a refusal, or a sign-in that takes no ticket, ends this. */
async function untilOver(attempt: Attempt): Promise<SessionFacts> {
  const { signal } = attempt.polling;
  try {
    for (;;) {
      await delay(attempt.started.pollMs, undefined, { signal });
      try {
        return await redeem(attempt, null);
      } catch (thrown) {
        const error = toZtnaError(thrown);
        if (errorRow(error.code).retry !== 'backoff') throw error;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    return new Promise(() => undefined);
  }
}

/** What was brought is still taken up: the tunnels that need it may go on before the browser has been told. */
async function untilAborted({ polling }: Attempt, signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const giveUp = (): void => {
      if (!polling.signal.aborted) reject(abortError(signal));
    };
    signal.addEventListener('abort', giveUp, { once: true });
    if (signal.aborted) giveUp();
  });
}
