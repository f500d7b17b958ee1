import { ZtnaError } from '../../protocol/index.ts';
import {
  createLogger,
  escapeTerminal,
  loadIdentity,
  type Identity,
  type Logger,
} from '../../protocol/host/index.ts';
import { Agent } from '../agent/agent.ts';
import { openProfile, type Profile } from '../agent/profile.ts';
import { MachinePosture } from '../posture/machine-posture.ts';

/** What every command takes. */
export interface GlobalOptions {
  readonly profile: string | undefined;
  readonly json: boolean;
}

/** Writes a line of talk to standard error; what came over the network is escaped. */
export function say(line: string): void {
  process.stderr.write(`${escapeTerminal(line)}\n`);
}

/** Writes a line of data to standard output. */
export function print(line: string): void {
  process.stdout.write(`${escapeTerminal(line)}\n`);
}

const logLevels = ['debug', 'info', 'warn', 'error'] as const;

/** The log of this process, on standard error. */
export function openLogger(): Logger {
  const wanted = process.env['ZTNA_LOG_LEVEL'];
  const level = logLevels.find((name) => name === wanted) ?? 'warn';
  return createLogger({ program: 'ztna', level, format: 'text' });
}

/** The profile's identity. Throws ERR_IDENTITY_NOT_ENROLLED. */
export async function requireIdentity(
  options: GlobalOptions,
): Promise<{ readonly profile: Profile; readonly identity: Identity }> {
  const profile = await openProfile(options.profile);
  const identity = await loadIdentity(profile.dir);
  if (identity) return { profile, identity };
  throw new ZtnaError('ERR_IDENTITY_NOT_ENROLLED', {
    hint: 'ask your administrator for a code or an address, then run: ztna enroll CODE, or ztna enroll https://HOST',
    hop: 'client',
  });
}

/** Runs `work` with a connected agent of this process and stops the agent whatever happens. */
export async function withAgent<T>(
  options: GlobalOptions,
  work: (agent: Agent, profile: Profile) => Promise<T>,
): Promise<T> {
  const { profile, identity } = await requireIdentity(options);
  const agent = await Agent.start({
    profile,
    identity,
    logger: openLogger(),
    posture: new MachinePosture(),
  });
  try {
    return await work(agent, profile);
  } finally {
    await agent.stop();
  }
}
