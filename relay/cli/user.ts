import { readSecretArgument } from '../../protocol/host/index.ts';
import { adminLeaf, done, fields, listOf, maybe, table, textOf, type Leaf } from './command.ts';
import { parseMoment } from './value.ts';

const name = { name: { type: 'string', describe: 'user name', demandOption: true } } as const;

const groups = {
  group: { type: 'string', array: true, nargs: 1, describe: 'group to be in; made if need be' },
} as const;

const settings = {
  ...groups,
  role: { choices: ['admin', 'helpdesk', 'auditor'], describe: 'may administer' },
  expires: { type: 'string', describe: 'when access ends: a date, a time or a duration' },
  'password-stdin': { type: 'boolean', describe: 'read a password from standard input' },
} as const;

async function userArgs(argv: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
  const expires = argv['expires'];
  const role = maybe(argv, 'role');
  return {
    name: textOf(argv, 'name'),
    groups: listOf(argv, 'group'),
    ...role,
    ...(typeof expires === 'string' ? { expiresAtMs: parseMoment(expires, Date.now()) } : {}),
    ...(argv['resetOtp'] === true ? { resetOtp: true } : {}),
    ...(argv['resetPasskeys'] === true ? { resetPasskeys: true } : {}),
    ...(argv['passwordStdin'] === true ? { password: await readSecretArgument('-') } : {}),
  };
}

function simple(verb: string, describe: string, past: string): Leaf {
  return adminLeaf({
    usage: `${verb} <name>`,
    describe,
    positionals: name,
    command: `user.${verb}`,
    args: (argv) => ({ name: textOf(argv, 'name') }),
    show: done((_, argv) => `user ${textOf(argv, 'name')} ${past}`),
  });
}

export const userLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <name>',
    describe: 'add a user',
    positionals: name,
    options: {
      ...settings,
      provider: { type: 'string', describe: 'where the user signs in (default: here)' },
    },
    command: 'user.add',
    args: async (argv) => ({ ...(await userArgs(argv)), ...maybe(argv, 'provider') }),
    show: done((result) => `user ${String(result['name'])} added (${String(result['id'])})`),
  }),
  adminLeaf({
    usage: 'set <name>',
    describe: 'change a user; groups given are added',
    positionals: name,
    options: {
      ...settings,
      'reset-otp': { type: 'boolean', describe: 'forget a lost authenticator' },
      'reset-passkeys': {
        type: 'boolean',
        describe: 'forget all passkeys and recovery codes, and sign out of all browsers',
      },
    },
    command: 'user.set',
    args: userArgs,
    show: done((result) => `user ${String(result['name'])} changed`),
  }),
  adminLeaf({
    usage: 'link <name>',
    describe: 'say whose a user is: a provider’s, or a directory’s to change',
    positionals: name,
    options: {
      provider: { type: 'string', describe: 'where the user signs in from here on' },
      subject: { type: 'string', describe: 'what the provider calls the user; else by name' },
      scim: { type: 'boolean', describe: 'a directory may change and remove the user' },
    },
    command: 'user.link',
    args: (argv) => ({
      name: textOf(argv, 'name'),
      ...maybe(argv, 'provider'),
      ...maybe(argv, 'subject'),
      scim: argv['scim'] === true,
    }),
    show: done((result) => `user ${String(result['name'])} is of ${String(result['provider'])}`),
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list users',
    command: 'user.list',
    show: table('name', 'kind', 'provider', 'groups', 'state', 'role', 'expiresAtMs', 'id'),
  }),
  adminLeaf({
    usage: 'show <name>',
    describe: 'show a user',
    positionals: name,
    command: 'user.show',
    args: (argv) => ({ name: textOf(argv, 'name') }),
    show: fields,
  }),
  simple('disable', 'end the access of a user until enabled again', 'disabled'),
  simple('enable', 'allow a disabled user again', 'enabled'),
  simple('remove', 'remove a user for good, with devices and sessions', 'removed'),
];
