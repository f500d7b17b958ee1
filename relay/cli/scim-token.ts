import { adminLeaf, done, maybe, table, talk, textOf, type Leaf } from './command.ts';

const name = {
  name: { type: 'string', describe: 'name of the token', demandOption: true },
} as const;
const nameArgs = (argv: Readonly<Record<string, unknown>>) => ({ name: textOf(argv, 'name') });

/** `scim-token …`: who may keep users and groups in step. */
export const scimTokenLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <name>',
    describe: 'make a token by which a directory provisions users and groups',
    positionals: name,
    options: {
      provider: {
        type: 'string',
        describe: 'the provider where users that it adds sign in (default: here)',
      },
    },
    command: 'scim-token.add',
    args: (argv) => ({ ...nameArgs(argv), ...maybe(argv, 'provider') }),
    show: (result) => {
      const { token, url } = result as { token: string; url: string };
      process.stdout.write(`${token}\n`);
      talk(`told this once; the base URL for the directory is ${url}`);
    },
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list tokens, without their secrets',
    command: 'scim-token.list',
    show: table('name', 'provider', 'createdAtMs', 'lastUsedAtMs'),
  }),
  adminLeaf({
    usage: 'remove <name>',
    describe: 'make a token worthless; what it provisioned stays',
    positionals: name,
    command: 'scim-token.remove',
    args: nameArgs,
    show: done((_, argv) => `SCIM token ${textOf(argv, 'name')} removed`),
  }),
];
