import { toZtnaError, type SessionFacts } from '../../protocol/index.ts';
import { askHidden, printJsonLine } from '../../protocol/host/index.ts';
import type { Agent } from '../agent/agent.ts';
import { askLine, canAsk, cannotAsk, readStdinLines } from '../ask.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';
import { say, withAgent, type GlobalOptions } from './context.ts';

export interface LoginOptions extends GlobalOptions {
  readonly user: string | undefined;
  readonly isPasswordOnStdin: boolean;
  readonly otp: string | undefined;
}

/** Signs a user in on this machine. Asks for what was not given, on a terminal only. */
export async function runLogin(options: LoginOptions): Promise<void> {
  if (!options.isPasswordOnStdin && !canAsk()) {
    throw cannotAsk('give the password with --password-stdin');
  }
  await withAgent(options, async (agent) => {
    const enrolled = agent.identity.profile['user'];
    const user =
      options.user ?? (options.isPasswordOnStdin ? enrolled : await askLine('user', enrolled));
    if (user === undefined) throw cannotAsk('name the user with --user');
    const password = options.isPasswordOnStdin
      ? ((await readStdinLines())[0] ?? '')
      : await askHidden('password: ');
    const session = await signIn(agent, user, password, options.otp ?? null);
    if (options.json) {
      printJsonLine({
        user: session.user,
        session: session.session,
        until: toIsoTime(session.untilMs),
      });
    } else {
      say(`signed in as ${session.user}, until ${toIsoTime(session.untilMs)}`);
    }
  });
}

async function signIn(
  agent: Agent,
  user: string,
  password: string,
  otp: string | null,
): Promise<SessionFacts> {
  try {
    return (await agent.request({ type: 'sign_in', user, password, otp })).session;
  } catch (error) {
    if (toZtnaError(error).code !== 'ERR_IDENTITY_OTP_NEEDED' || otp !== null || !canAsk()) {
      throw error;
    }
    const asked = await askLine('one-time password');
    return (await agent.request({ type: 'sign_in', user, password, otp: asked })).session;
  }
}

/** Ends the session of this machine; its tunnels end with it. */
export async function runLogout(options: GlobalOptions): Promise<void> {
  await withAgent(options, async (agent) => {
    await agent.request({ type: 'sign_out' });
    if (options.json) printJsonLine({ signedIn: false });
    else say('signed out');
  });
}
