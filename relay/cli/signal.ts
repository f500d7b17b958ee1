import { adminLeaf, done, table, textOf, type Leaf } from './command.ts';

const letterId = {
  id: { type: 'string', describe: 'id of a dead letter', demandOption: true },
} as const;
const deviceId = {
  id: { type: 'string', describe: 'id of a device', demandOption: true },
} as const;
const idArgs = (argv: Readonly<Record<string, unknown>>) => ({ id: textOf(argv, 'id') });

/** `signal …`: events of others, and those that others are told. */
export const signalLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'list',
    describe: 'list streams, receivers and webhooks, and how they fare',
    command: 'signal.list',
    show: table(
      ...['name', 'kind', 'direction', 'count', 'refused', 'waiting', 'lastAtMs', 'verifiedAtMs'],
      ...['status', 'lastError'],
    ),
  }),
  adminLeaf({
    usage: 'dead',
    describe: 'list what could not be delivered',
    command: 'signal.dead',
    show: table('id', 'target', 'event', 'attempts', 'lastError', 'createdAtMs'),
  }),
  adminLeaf({
    usage: 'retry <id>',
    describe: 'deliver a dead letter after all',
    positionals: letterId,
    command: 'signal.retry',
    args: idArgs,
    show: done((_, argv) => `${textOf(argv, 'id')} is on its way`),
  }),
  adminLeaf({
    usage: 'lift <id>',
    describe: 'lift what streams imposed on a device',
    positionals: deviceId,
    command: 'signal.lift',
    args: idArgs,
    show: done((_, argv) => `device ${textOf(argv, 'id')} is restricted no more`),
  }),
];
