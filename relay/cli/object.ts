import { adminLeaf, done, fields, table, textOf, type Leaf, type Show } from './command.ts';
import { riskText, type Risk } from './why.ts';

const id = {
  id: { type: 'string', describe: 'id, or its unique beginning', demandOption: true },
} as const;
const idArgs = (argv: Readonly<Record<string, unknown>>) => ({ id: textOf(argv, 'id') });

/** An object one member a line, its risk in words. */
export const fieldsWithRisk: Show = (result, argv) => {
  const { risk, ...rest } = result as Record<string, unknown>;
  fields(risk === undefined ? rest : { ...rest, risk: riskText(risk as Risk) }, argv);
};

function listAndShow(kind: string, plural: string, ...columns: readonly string[]): Leaf[] {
  return [
    adminLeaf({
      usage: 'list',
      describe: `list ${plural}`,
      command: `${kind}.list`,
      show: table(...columns),
    }),
    adminLeaf({
      usage: 'show <id>',
      describe: `show one of the ${plural}`,
      positionals: id,
      command: `${kind}.show`,
      args: idArgs,
      show: fieldsWithRisk,
    }),
  ];
}

function act(kind: string, verb: string, describe: string, past: string): Leaf {
  return adminLeaf({
    usage: `${verb} <id>`,
    describe,
    positionals: id,
    command: `${kind}.${verb}`,
    args: idArgs,
    show: done((_, argv) => `${kind} ${textOf(argv, 'id')} ${past}`),
  });
}

export const connectorLeaves: readonly Leaf[] = [
  ...listAndShow(
    'connector',
    'connectors',
    'id',
    'name',
    'site',
    'state',
    'online',
    'apps',
    'unhealthy',
  ),
  act('connector', 'remove', 'remove a connector for good and end its tunnels', 'removed'),
];

export const relayLeaves: readonly Leaf[] = [
  ...listAndShow(
    'relay',
    'relays',
    ...['id', 'name', 'url', 'controlPlane', 'state', 'online', 'lastSeenAtMs'],
  ),
  act('relay', 'remove', 'remove a relay for good', 'removed'),
];

export const deviceLeaves: readonly Leaf[] = [
  ...listAndShow('device', 'devices', 'id', 'user', 'hostname', 'state', 'online', 'lastSeenAtMs'),
  act('device', 'approve', 'let a device in that waits for approval', 'approved'),
  act('device', 'disable', 'end the access of a device until enabled again', 'disabled'),
  act('device', 'enable', 'allow a disabled device again', 'enabled'),
];

export const tunnelLeaves: readonly Leaf[] = listAndShow(
  'tunnel',
  'tunnels',
  ...['id', 'user', 'app', 'state', 'untilMs', 'connector', 'relay', 'closeReason'],
);

export const decisionLeaves: readonly Leaf[] = listAndShow(
  'decision',
  'decisions',
  ...['id', 'decidedAtMs', 'user', 'app', 'verdict', 'policyVersion', 'reasons'],
);

/** `revoke KIND ID --reason TEXT`: at once, wherever a tunnel is open. */
export const revokeLeaf: Leaf = adminLeaf({
  usage: 'revoke <kind> <id>',
  describe: 'end access now: sessions and tunnels; for a device or connector for good',
  positionals: {
    kind: {
      choices: ['user', 'session', 'device', 'connector', 'tunnel'],
      describe: 'what to revoke',
      demandOption: true,
    },
    id: { type: 'string', describe: 'id or name', demandOption: true },
  },
  options: {
    reason: {
      type: 'string',
      describe: 'why, for the audit log; a snake_case word is told to users too',
      demandOption: true,
    },
  },
  command: 'revoke',
  args: (argv) => ({
    kind: textOf(argv, 'kind'),
    id: textOf(argv, 'id'),
    reason: textOf(argv, 'reason'),
  }),
  show: done(
    (result, argv) =>
      `${textOf(argv, 'kind')} ${textOf(argv, 'id')} revoked; tunnels ended: ${String(result['tunnelsEnded'])}`,
  ),
});
