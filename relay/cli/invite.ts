import { parseDurationMs } from '../../protocol/host/index.ts';
import {
  adminLeaf,
  done,
  listOf,
  maybe,
  table,
  talk,
  textOf,
  type Arguments,
  type Leaf,
  type Show,
} from './command.ts';

/** The code alone on stdout, so that it can be piped; how long it holds on stderr. */
const showCode: Show = (result) => {
  const { code, expiresAtMs } = result as { code: string; expiresAtMs: number };
  process.stdout.write(`${code}\n`);
  talk(`valid until ${new Date(expiresAtMs).toISOString()}`);
};

const ttl = (value: string) =>
  ({ ttl: { type: 'string', default: value, describe: 'how long the code is valid' } }) as const;

const reusable = {
  reusable: { type: 'boolean', describe: 'the code serves several machines' },
  max: { type: 'number', describe: 'how many machines a reusable code serves' },
} as const;

function usesOf(argv: Arguments): number {
  if (argv['reusable'] !== true) return 1;
  return typeof argv['max'] === 'number' ? argv['max'] : 100;
}

export const inviteLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'user <name>',
    describe: 'make a code that enrols one device of a user',
    positionals: { name: { type: 'string', describe: 'user name', demandOption: true } },
    options: {
      group: { type: 'string', array: true, nargs: 1, describe: 'group to be in; made if need be' },
      ...ttl('24h'),
    },
    command: 'invite.user',
    args: (argv) => ({
      name: textOf(argv, 'name'),
      groups: listOf(argv, 'group'),
      ttlMs: parseDurationMs(textOf(argv, 'ttl')),
    }),
    show: showCode,
  }),
  adminLeaf({
    usage: 'service <name>',
    describe: 'make a code that enrols a machine of a service',
    positionals: { name: { type: 'string', describe: 'service name', demandOption: true } },
    options: { ...reusable, ...ttl('24h') },
    command: 'invite.service',
    args: (argv) => ({
      name: textOf(argv, 'name'),
      ttlMs: parseDurationMs(textOf(argv, 'ttl')),
      uses: usesOf(argv),
    }),
    show: showCode,
  }),
  adminLeaf({
    usage: 'connector <name>',
    describe: 'make a code that enrols a connector',
    positionals: { name: { type: 'string', describe: 'connector name', demandOption: true } },
    options: {
      site: { type: 'string', describe: 'the site it serves' },
      app: { type: 'string', array: true, nargs: 1, describe: 'make the site NAME with this app' },
      ...reusable,
      ...ttl('1h'),
    },
    command: 'invite.connector',
    args: (argv) => ({
      name: textOf(argv, 'name'),
      ...maybe(argv, 'site'),
      apps: listOf(argv, 'app'),
      ttlMs: parseDurationMs(textOf(argv, 'ttl')),
      uses: usesOf(argv),
    }),
    show: showCode,
  }),
  adminLeaf({
    usage: 'relay <name>',
    describe: 'make a code that enrols a further relay',
    positionals: { name: { type: 'string', describe: 'relay name', demandOption: true } },
    options: {
      url: {
        type: 'string',
        describe: 'https://HOST:PORT by which agents and connectors reach it',
        demandOption: true,
      },
      'control-plane': {
        type: 'boolean',
        describe: 'a control plane may join there, too: init --join',
      },
      ...ttl('1h'),
    },
    command: 'invite.relay',
    args: (argv) => ({
      name: textOf(argv, 'name'),
      url: textOf(argv, 'url'),
      isControl: argv['controlPlane'] === true,
      ttlMs: parseDurationMs(textOf(argv, 'ttl')),
    }),
    show: showCode,
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list codes, without their secrets',
    command: 'invite.list',
    show: table('id', 'kind', 'subject', 'usesLeft', 'expiresAtMs', 'state'),
  }),
  adminLeaf({
    usage: 'revoke <id>',
    describe: 'make a code worthless',
    positionals: { id: { type: 'string', describe: 'id of the invitation', demandOption: true } },
    command: 'invite.revoke',
    args: (argv) => ({ id: textOf(argv, 'id') }),
    show: done((_, argv) => `invitation ${textOf(argv, 'id')} revoked`),
  }),
];
