import { ZtnaError, type SessionFacts } from '../../protocol/index.ts';
import { askHidden, printJsonLine } from '../../protocol/host/index.ts';
import type { Agent } from '../agent/agent.ts';
import { openProfile } from '../agent/profile.ts';
import { forgetServiceAccount } from '../agent/service-account.ts';
import { signIn } from '../agent/sign-in.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';
import { askLine, canAsk, cannotAsk, readStdinLines } from '../ask.ts';
import {
  chooseWay,
  mustSay,
  waysOf,
  type AskedWay,
  type SignInWay,
} from '../sign-in/choose-way.ts';
import { recallProvider, rememberProvider } from '../sign-in/last-provider.ts';
import { findBrowser, showPage } from '../sign-in/open-browser.ts';
import { showInvitation } from '../sign-in/show-invitation.ts';
import { signInElsewhere, type SignInInvitation } from '../sign-in/sign-in-elsewhere.ts';
import { say, withAgent, type GlobalOptions } from './context.ts';

export interface LoginOptions extends GlobalOptions {
  readonly user: string | undefined;
  readonly isPasswordOnStdin: boolean;
  readonly otp: string | undefined;
  readonly provider: string | undefined;
  readonly isDeviceCode: boolean;
  /** False: no browser of this machine; true: the sign-in page; undefined: as it suits. */
  readonly isBrowser: boolean | undefined;
  /** The ticket that the sign-in page ends with comes on standard input. */
  readonly isTicketOnStdin: boolean;
}

/** Signs a user in on this machine. Asks for what was not given, on a terminal only. */
export async function runLogin(options: LoginOptions): Promise<void> {
  checkFlags(options);
  await withAgent(options, async (agent, profile) => {
    const way = await wayOf(agent, options, await recallProvider(profile));
    const session =
      way.kind === 'password'
        ? await signInHere(agent, options)
        : await signInThere(agent, way, options);
    await rememberProvider(profile, session.provider ?? 'local');
    tellSession(session, options);
  });
}

/** Says who is signed in now, and until when. */
export function tellSession(session: SessionFacts, { json }: GlobalOptions): void {
  const { user, untilMs, provider, methods } = session;
  const until = toIsoTime(untilMs);
  if (json) {
    printJsonLine({
      user,
      session: session.session,
      until,
      provider: provider ?? 'local',
      methods,
    });
  } else {
    const by = provider === undefined || provider === 'local' ? '' : ` by ${provider}`;
    say(`signed in as ${user}${by}, until ${until}`);
  }
}

/** True for a sign-in whose user, password and code are given here. */
function isByPassword({ user, isPasswordOnStdin, otp }: LoginOptions): boolean {
  return isPasswordOnStdin || user !== undefined || otp !== undefined;
}

function checkFlags(options: LoginOptions): void {
  const { isDeviceCode, isBrowser, isTicketOnStdin } = options;
  const isElsewhere = isDeviceCode || isBrowser !== undefined || isTicketOnStdin;
  const provider = options.provider ?? 'local';
  if (isByPassword(options) && (isElsewhere || provider !== 'local')) {
    throw usage(
      '--user, --password-stdin and --otp are for a sign-in with a password here',
      'leave them out, or --provider, --device-code, --browser and --no-browser',
    );
  }
  if (isDeviceCode && (isBrowser === true || isTicketOnStdin)) {
    throw usage('--device-code opens no browser and asks for no ticket', 'leave one of them out');
  }
  if (isTicketOnStdin && isBrowser !== false) {
    throw usage('--ticket-stdin is for a browser of another machine', 'add --no-browser');
  }
  if (isBrowser === true && !findBrowser()) {
    throw usage(
      'there is no browser to be seen on this machine',
      'use --no-browser, or name one in BROWSER',
    );
  }
}

function usage(message: string, hint: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', { message, hint, hop: 'client' });
}

async function wayOf(
  agent: Agent,
  options: LoginOptions,
  last: string | undefined,
): Promise<SignInWay> {
  const asked: AskedWay = {
    provider: options.provider,
    isDeviceCode: options.isDeviceCode,
    isByPage: options.isBrowser === undefined ? undefined : true,
  };
  const isOpen = !asked.provider && !asked.isDeviceCode && !asked.isByPage;
  if (isByPassword(options) || (isOpen && !agent.knowsIdentity)) return { kind: 'password' };
  const known = await agent.request({ type: 'providers' });
  if (isOpen && !canAsk()) throw mustSay(waysOf(known));
  const ask = async (names: readonly string[]): Promise<string> => {
    for (const { name, title } of known.providers) say(`  ${name.padEnd(16)}${title}`);
    if (known.isLocal) say(`  ${'local'.padEnd(16)}a password of this relay`);
    return askLine('sign in at', names[0]);
  };
  return chooseWay(asked, known, last, ask);
}

/** With a password, on this terminal. */
async function signInHere(agent: Agent, options: LoginOptions): Promise<SessionFacts> {
  if (!options.isPasswordOnStdin && !canAsk()) {
    throw cannotAsk('give the password with --password-stdin');
  }
  const enrolled = agent.identity.profile['user'];
  const user =
    options.user ?? (options.isPasswordOnStdin ? enrolled : await askLine('user', enrolled));
  if (user === undefined) throw cannotAsk('name the user with --user');
  const password = options.isPasswordOnStdin
    ? ((await readStdinLines())[0] ?? '')
    : await askHidden('password: ');
  const { otp } = options;
  const askOtp = otp === undefined && canAsk() ? () => askLine('one-time password') : undefined;
  return signIn(agent, { user, password, otp: otp ?? null, askOtp });
}

/** In a browser, or at a provider's page on another machine. */
async function signInThere(
  agent: Agent,
  { method, provider }: Extract<SignInWay, { kind: 'elsewhere' }>,
  options: LoginOptions,
): Promise<SessionFacts> {
  const browser = options.isBrowser === false ? undefined : findBrowser();
  const isHere = method === 'browser' && browser !== undefined;
  if (method === 'browser' && !isHere && !options.isTicketOnStdin && !canAsk()) {
    throw cannotAsk('give the ticket with which the sign-in page ends with --ticket-stdin');
  }
  const invite = (invitation: SignInInvitation): void => {
    if (options.json) {
      const { url, userCode, expiresAtMs } = invitation;
      printJsonLine({ event: 'sign_in', url, userCode, until: toIsoTime(expiresAtMs) });
      return;
    }
    const draw = (text: string): void => void process.stderr.write(`${text}\n`);
    showInvitation(invitation, { isHere, say, draw });
    if (isHere) say('waiting for you there; Ctrl-C gives up');
  };
  return signInElsewhere(agent, {
    method,
    provider,
    isStepUp: false,
    browser,
    invite,
    askTicket: async (signal) =>
      options.isTicketOnStdin
        ? ((await readStdinLines())[0] ?? '')
        : askLine('the ticket that the page shows at the end', undefined, signal),
    say,
    signal: new AbortController().signal,
  });
}

export interface LogoutOptions extends GlobalOptions {
  /** Show the provider's own page, too, where it has one. */
  readonly isBrowser: boolean;
}

/** Ends the session of this machine; its tunnels end with it. */
export async function runLogout(options: LogoutOptions): Promise<void> {
  await forgetServiceAccount(await openProfile(options.profile)); // else it would sign in again
  await withAgent(options, async (agent) => {
    const answer = await agent.request({ type: 'sign_out' });
    const logoutUrl = answer.type === 'signed_out' ? answer.logoutUrl : null;
    if (options.json) {
      printJsonLine({ signedIn: false, logoutUrl });
      return;
    }
    say('signed out; the tunnels of this machine have ended');
    if (logoutUrl === null) return;
    const isShown = options.isBrowser && (await showPage(logoutUrl));
    say(
      `to end the session at your provider, too, ${isShown ? 'go on in the browser, or ' : ''}open:`,
    );
    say(logoutUrl);
  });
}
