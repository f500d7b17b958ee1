import { resolve } from 'node:path';
import { ZtnaError, type SessionFacts } from '../../protocol/index.ts';
import {
  keepServiceAccount,
  signInService,
  type ServiceAccount,
} from '../agent/service-account.ts';
import { withAgent, type GlobalOptions } from './context.ts';

export interface ServiceLoginOptions extends GlobalOptions {
  readonly service: string | undefined;
  readonly keyFile: string | undefined;
  readonly tokenFile: string | undefined;
  /** Flags were given that are for people. */
  readonly isByPerson: boolean;
}

/**
 * Signs a service in on this machine, and has every command from here on keep it signed in. Asks nothing. Throws as
 * `signInService`.
 */
export async function runServiceLogin(
  options: ServiceLoginOptions,
  tell: (session: SessionFacts) => void,
): Promise<void> {
  const { service, keyFile, tokenFile } = options;
  const file = keyFile ?? tokenFile;
  if (service === undefined || options.isByPerson) {
    throw usage('keys and tokens in files are for services', 'name it, with --service NAME alone');
  }
  if (file === undefined || (keyFile !== undefined && tokenFile !== undefined)) {
    throw usage(
      'a service signs in with a key or with a token',
      'give --key-file FILE or --token-file FILE',
    );
  }
  await withAgent(options, async (agent, profile) => {
    const account: ServiceAccount = {
      service,
      device: agent.identity.id,
      proof: { kind: keyFile === undefined ? 'token' : 'key', file: resolve(file) },
    };
    const session = await signInService(agent, account);
    await keepServiceAccount(profile, account);
    tell(session);
  });
}

function usage(message: string, hint: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', { message, hint, hop: 'client' });
}
