import { createHash, randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import {
  parseEnrolmentCode,
  toZtnaError,
  ZtnaError,
  type EnrolAnswer,
} from '../../protocol/index.ts';
import { enrol, machineFacts, type Identity } from '../../protocol/host/index.ts';
import type { AnswerPage } from './answer-page.ts';
import { Loopback, type Arrival } from './loopback.ts';
import { openInBrowser, type Browser } from './open-browser.ts';

/** A person has so long to sign in; the relay's page gives up before. */
const patienceMs = 900_000;

export interface BrowserEnrolmentOptions {
  /** The relay's address, as the person typed it. */
  readonly origin: string;
  /** This machine's browser; without one the person uses another machine's, and types the code that the page ends with. */
  readonly browser: Browser | undefined;
  readonly invite: (page: { readonly url: string; readonly isOpened: boolean }) => void;
  /** Asks for the code that the page ends with. */
  readonly askCode: (signal: AbortSignal) => Promise<string>;
}

export interface DeviceEnrolment {
  readonly identity: Identity;
  readonly answer: Extract<EnrolAnswer, { role: 'device' }>;
}

/**
 * Enrols this machine for whoever signs in at the relay's page. The browser's TLS vouches for the relay; what it brings names the
 * root that is pinned from then on, and is of use only with a verifier that never leaves this process before. Nothing is kept. Throws
 * what the enrolment was refused with, and ERR_IDENTITY_SIGN_IN_NEEDED when nobody signs in.
 */
export async function enrolByBrowser(options: BrowserEnrolmentOptions): Promise<DeviceEnrolment> {
  const { origin, browser } = options;
  const [verifier, state] = [secret(), secret()];
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const over = new AbortController();
  const loopback = browser
    ? await Loopback.listen((query) =>
        query.get('state') === state ? (query.get('code') ?? undefined) : undefined,
      )
    : undefined;
  try {
    const query = new URLSearchParams({
      challenge,
      ...(loopback && { port: String(loopback.port), state }),
    });
    const url = new URL(`/enrol?${query.toString()}`, origin).href;
    const isOpened = browser !== undefined && (await openInBrowser(browser, url));
    options.invite({ url, isOpened });
    const coming = loopback
      ? loopback.arrived.then(async (arrival) => takeUp(arrival, { origin, verifier }))
      : options.askCode(over.signal).then(async (code) => enrolWith(code, { origin, verifier }));
    return await Promise.race([coming, tooLong(over.signal)]);
  } finally {
    over.abort();
    loopback?.close();
  }
}

const secret = (): string => randomBytes(32).toString('base64url');

/** The relay that the person named, and what only this command knows. */
interface Asked {
  readonly origin: string;
  readonly verifier: string;
}

/** Nobody else's code counts: what the person named, and the browser's TLS vouched for, is what is pinned. */
async function enrolWith(text: string, { origin, verifier }: Asked): Promise<DeviceEnrolment> {
  const code = parseEnrolmentCode(text);
  if (new URL(code.url).origin !== new URL(origin).origin) {
    throw new ZtnaError('ERR_IDENTITY_CODE_REFUSED', {
      message: `that code is of another relay, ${new URL(code.url).origin}`,
      hop: 'client',
    });
  }
  const { identity, answer } = await enrol({
    code,
    ...machineFacts(),
    password: null,
    expectRole: 'device',
    verifier,
  });
  if (answer.role !== 'device') throw new ZtnaError('ERR_IDENTITY_ROLE');
  return { identity, answer };
}

/** Takes what the browser brought, and has it say how that ended. */
async function takeUp(arrival: Arrival<string>, asked: Asked): Promise<DeviceEnrolment> {
  try {
    const enrolled = await enrolWith(arrival.brought, asked);
    await arrival.answer(enrolled.answer.pending === true ? pendingPage : enrolledPage);
    return enrolled;
  } catch (thrown) {
    const { message, code } = toZtnaError(thrown);
    const text = `${message} [${code}]`;
    await arrival.answer({ status: 400, title: 'This machine is not enrolled', text });
    throw thrown;
  }
}

const enrolledPage: AnswerPage = {
  status: 200,
  title: 'This machine is enrolled',
  text: 'You are signed in. You may close this window and go back to your terminal.',
};

const pendingPage: AnswerPage = {
  status: 200,
  title: 'This machine waits for approval',
  text: 'An administrator has to approve it. You may close this window and go back to your terminal.',
};

async function tooLong(signal: AbortSignal): Promise<never> {
  await delay(patienceMs, undefined, { signal });
  throw new ZtnaError('ERR_IDENTITY_SIGN_IN_NEEDED', {
    message: 'nobody signed in',
    hint: 'run the command again, and sign in on the page that it opens',
    hop: 'client',
  });
}
