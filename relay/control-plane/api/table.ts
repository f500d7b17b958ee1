import { ZtnaError } from '../../../protocol/index.ts';
import type { Services } from '../services.ts';
import { authorize, type Command } from './command.ts';
import { appCommands } from './commands/app.ts';
import { auditCommands } from './commands/audit.ts';
import { groupCommands } from './commands/group.ts';
import { inviteCommands } from './commands/invite.ts';
import { objectCommands } from './commands/object.ts';
import { policyCommands } from './commands/policy.ts';
import { policyHistoryCommands } from './commands/policy-history.ts';
import { providerCommands } from './commands/provider.ts';
import { relayCommands } from './commands/relay.ts';
import { revokeCommands } from './commands/revoke.ts';
import { scimTokenCommands } from './commands/scim-token.ts';
import { serviceCommands } from './commands/service.ts';
import { sessionCommands } from './commands/session.ts';
import { signalCommands } from './commands/signal.ts';
import { siteCommands } from './commands/site.ts';
import { userCommands } from './commands/user.ts';

const all = [
  ...userCommands,
  ...groupCommands,
  ...siteCommands,
  ...appCommands,
  ...objectCommands,
  ...inviteCommands,
  ...relayCommands,
  ...providerCommands,
  ...revokeCommands,
  ...policyCommands,
  ...scimTokenCommands,
  ...serviceCommands,
  ...sessionCommands,
  ...signalCommands,
  ...policyHistoryCommands,
  ...auditCommands,
];

/** Every administration command by name. */
export const commandTable: ReadonlyMap<string, Command> = new Map(
  all.map((command) => [command.name, command]),
);

/** Runs a command for an actor: one table, one authorizer. Throws ERR_CONFIG_USAGE for an unknown one. */
export async function runCommand(
  services: Services,
  name: string,
  args: unknown,
  actor: string,
): Promise<unknown> {
  const command = commandTable.get(name);
  if (!command) throw new ZtnaError('ERR_CONFIG_USAGE', { message: `there is no command ${name}` });
  authorize(actor, command);
  const result = await command.run(services, args, actor);
  // What ended permission was told to everyone here before the answer.
  if (command.access === 'change') await services.feed.wake();
  return result;
}
