import { resolve } from 'node:path';
import { ZtnaError, type SessionFacts } from '../../protocol/index.ts';
import {
  keepServiceAccount,
  signInService,
  type ServiceAccount,
} from '../agent/service-account.ts';
import { withAgent, type GlobalOptions } from './context.ts';

export interface ServiceLoginOptions extends GlobalOptions {
  readonly service: string;
  readonly keyFile: string | undefined;
  readonly tokenFile: string | undefined;
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
  if (file === undefined || (keyFile !== undefined && tokenFile !== undefined)) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'a service signs in with a key or with a token',
      hint: 'give --key-file FILE or --token-file FILE',
      hop: 'client',
    });
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
