import {
  environmentNames,
  runCommandLine,
  warnUnknownEnvironment,
} from '../../protocol/host/early.ts';
import { auditLeaves } from './audit.ts';
import { addGroup, addLeaf } from './command.ts';
import { addGroupCommands } from './group.ts';
import { initLeaf } from './init.ts';
import { inviteLeaves } from './invite.ts';
import { addLaterCommands } from './later.ts';
import {
  connectorLeaves,
  decisionLeaves,
  deviceLeaves,
  relayLeaves,
  revokeLeaf,
  tunnelLeaves,
} from './object.ts';
import { policyLeaves } from './policy.ts';
import { providerLeaves } from './provider.ts';
import { riskLeaves } from './risk.ts';
import { runLeaf } from './run.ts';
import { scimTokenLeaves } from './scim-token.ts';
import { serviceLeaves } from './service.ts';
import { sessionLeaves } from './session.ts';
import { signalLeaves } from './signal.ts';
import { appLeaves, siteLeaves } from './site.ts';
import { userLeaves } from './user.ts';
import type { Argv } from 'yargs';

/** Where a relay keeps its state unless told otherwise. */
export const defaultDir = '/var/lib/ztna-relay';

/** What this program alone reads from the environment, with its use. */
export const relayEnvironment: Readonly<Record<string, string>> = {
  ZTNA_RELAY_DIR: 'state directory, when there is no --dir',
};

function describeEnvironment(): string {
  const all = { ...relayEnvironment, ...environmentNames };
  const width = Math.max(...Object.keys(all).map((name) => name.length));
  const lines = Object.entries(all).map(([name, use]) => `  ${name.padEnd(width)}  ${use}`);
  return ['Environment:', ...lines].join('\n');
}

/** Runs `ztna-relay` with these arguments, to its exit code. */
export async function runZtnaRelay(argv: readonly string[]): Promise<void> {
  warnUnknownEnvironment('ztna-relay', Object.keys(relayEnvironment));
  await runCommandLine({ program: 'ztna-relay', build: buildRelayCommands, argv });
}

/** The whole command tree of `ztna-relay`. */
export function buildRelayCommands(y: Argv): Argv {
  const global = y
    .option('dir', {
      type: 'string',
      describe: 'state directory (ZTNA_RELAY_DIR)',
      default: process.env['ZTNA_RELAY_DIR'] ?? defaultDir,
      global: true,
      requiresArg: true,
    })
    .option('json', { type: 'boolean', describe: 'one JSON object per line', global: true })
    .epilogue(describeEnvironment());
  const withStarts = addLeaf(addLeaf(global, initLeaf), runLeaf);
  const groups: readonly (readonly [string, string, Parameters<typeof addGroup>[3]])[] = [
    ['user', 'users', userLeaves],
    ['provider', 'where users sign in', providerLeaves],
    ['site', 'sites', siteLeaves],
    ['app', 'private apps', appLeaves],
    ['connector', 'connectors', connectorLeaves],
    ['relay', 'relays', relayLeaves],
    ['device', 'enrolled machines', deviceLeaves],
    ['session', 'signed-in users', sessionLeaves],
    ['tunnel', 'tunnels', tunnelLeaves],
    ['decision', 'policy decisions', decisionLeaves],
    ['invite', 'one-time enrolment codes', inviteLeaves],
    ['policy', 'who may reach what', policyLeaves],
    ['scim-token', 'tokens of directories that provision users', scimTokenLeaves],
    ['service', 'service accounts', serviceLeaves],
    ['signal', 'events from and for other systems', signalLeaves],
    ['audit', 'the audit log', auditLeaves],
    ['risk', 'what is unusual for a user', riskLeaves],
  ];
  const all = groups.reduce(
    (tree, [word, describe, leaves]) => addGroup(tree, word, describe, leaves),
    withStarts,
  );
  return addLaterCommands(addLeaf(addGroupCommands(all), revokeLeaf));
}
