import { toZtnaError, type SessionFacts } from '../../protocol/index.ts';
import type { Agent } from './agent.ts';

export interface Credentials {
  readonly user: string;
  readonly password: string;
  readonly otp: string | null;
  /** Asks for a one-time password when it turns out that one is needed. */
  readonly askOtp?: (() => Promise<string>) | undefined;
}

/** Signs in. Throws ERR_IDENTITY_OTP_NEEDED where nobody can be asked for one, and what the sign-in was refused with. */
export async function signIn(
  agent: Pick<Agent, 'request'>,
  { user, password, otp, askOtp }: Credentials,
): Promise<SessionFacts> {
  const attempt = async (code: string | null): Promise<SessionFacts> =>
    (await agent.request({ type: 'sign_in', user, password, otp: code })).session;
  try {
    return await attempt(otp);
  } catch (error) {
    if (toZtnaError(error).code !== 'ERR_IDENTITY_OTP_NEEDED' || !askOtp) throw error;
    return attempt(await askOtp());
  }
}
