import type { SessionFacts } from '../../protocol/index.ts';
import { askHidden } from '../../protocol/host/index.ts';
import type { Agent } from '../agent/agent.ts';
import type { Profile } from '../agent/profile.ts';
import type { TunnelReporter } from '../agent/tunnel-event.ts';
import { askLine, canInterrupt, canShow, cannotAsk } from '../ask.ts';
import { recallProvider, rememberProvider } from '../sign-in/last-provider.ts';
import { takeTurn } from '../sign-in/one-at-a-time.ts';
import { findBrowser } from '../sign-in/open-browser.ts';
import { SignInPrompt, type Person } from './sign-in-prompt.ts';

export interface PersonOptions {
  readonly agent: Agent;
  readonly profile: Profile;
  readonly reporter: Pick<TunnelReporter, 'say'>;
  /** True where standard input and output belong to an app or to a child: nothing is asked or shown there. */
  readonly isInputTaken: boolean;
}

/** What asks whoever sits at this command to sign in; undefined where nobody does. */
export function promptAt(options: PersonOptions, signal: AbortSignal): SignInPrompt | undefined {
  if (options.agent.isService) return undefined;
  if (!canShow() || (options.isInputTaken && !options.agent.knowsIdentity)) return undefined;
  return new SignInPrompt(options.agent, personAt(options), signal);
}

/** Who sits at this command. Asked each time whether that is so still: the command may be behind its shell by then. */
function personAt(options: PersonOptions): Person {
  const { profile, reporter, isInputTaken } = options;
  const canType = (): boolean => !isInputTaken && canInterrupt();
  const mustBeThere = (): void => {
    if (!canType()) throw cannotAsk('run: ztna login');
  };
  const person: Person = {
    canType,
    askHidden: async (question, signal) => {
      mustBeThere();
      return askHidden(question, signal);
    },
    askLine: async (question, signal) => {
      mustBeThere();
      return askLine(question, undefined, signal);
    },
    say: (line) => {
      reporter.say(line);
    },
    usualProvider: async () => recallProvider(profile),
    browse: async (what, signal) => browse(options, person, what, signal),
  };
  return person;
}

/**
 * On a page, of whichever kind this machine can show: in its browser; with a code at the provider; or on another machine, where the
 * page ends with a ticket that can be typed here.
 */
async function browse(
  { agent, profile }: PersonOptions,
  person: Person,
  { isStepUp, provider }: { readonly isStepUp: boolean; readonly provider: string },
  signal: AbortSignal,
): Promise<boolean> {
  const before = await currentSession(agent);
  const turn = await takeTurn(profile, signal);
  try {
    if (turn.hasWaited) {
      // Another command had the person at a page; whoever gave up there is not asked again here.
      const now = await currentSession(agent);
      return now !== null && now.session !== before?.session;
    }
    const browser = findBrowser();
    const method = browser ? 'browser' : await methodWithoutBrowser(agent, person, provider);
    if (method === undefined) return false;
    // Few connects need a page, and all would wait for what it takes to be loaded.
    const [{ signInElsewhere }, { showInvitation }] = await Promise.all([
      import('../sign-in/sign-in-elsewhere.ts'),
      import('../sign-in/show-invitation.ts'),
    ]);
    const isHere = browser !== undefined;
    const say = (line: string): void => {
      person.say(line);
    };
    const session = await signInElsewhere(agent, {
      method,
      provider: provider === 'local' ? null : provider,
      isStepUp,
      browser,
      invite: (invitation) => {
        const draw = (text: string): void => {
          for (const line of text.split('\n')) say(line);
        };
        showInvitation(invitation, { isHere, say, draw });
      },
      askTicket: async (asked) =>
        person.askLine('the ticket that the page shows at the end', asked),
      say,
      signal,
    });
    await rememberProvider(profile, session.provider ?? 'local');
    say(`signed in as ${session.user}`);
    return true;
  } finally {
    await turn.end();
  }
}

async function methodWithoutBrowser(
  agent: Agent,
  person: Person,
  provider: string,
): Promise<'browser' | 'device_code' | undefined> {
  if (person.canType()) return 'browser';
  const { providers } = await agent.request({ type: 'providers' });
  const isAble = providers.some(({ name, hasDeviceCode }) => name === provider && hasDeviceCode);
  return isAble ? 'device_code' : undefined;
}

async function currentSession(agent: Agent): Promise<SessionFacts | null> {
  return (await agent.request({ type: 'status' })).session;
}
