import { askHidden, printJsonLine } from '../../protocol/host/index.ts';
import { signIn } from '../agent/sign-in.ts';
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
    const { otp } = options;
    const askOtp = otp === undefined && canAsk() ? () => askLine('one-time password') : undefined;
    const session = await signIn(agent, { user, password, otp: otp ?? null, askOtp });
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

/** Ends the session of this machine; its tunnels end with it. */
export async function runLogout(options: GlobalOptions): Promise<void> {
  await withAgent(options, async (agent) => {
    await agent.request({ type: 'sign_out' });
    if (options.json) printJsonLine({ signedIn: false });
    else say('signed out');
  });
}
