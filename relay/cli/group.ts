import { adminLeaf, addGroup, addLeaf, done, fields, table, textOf, type Leaf } from './command.ts';
import { parseMoment } from './value.ts';
import type { Argv } from 'yargs';

const name = { name: { type: 'string', describe: 'group name', demandOption: true } } as const;
const nameArgs = (argv: Readonly<Record<string, unknown>>) => ({ name: textOf(argv, 'name') });

const leaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <name>',
    describe: 'add a group',
    positionals: name,
    command: 'group.add',
    args: nameArgs,
    show: done((_, argv) => `group ${textOf(argv, 'name')} added`),
  }),
  adminLeaf({
    usage: 'remove <name>',
    describe: 'remove a group and its memberships',
    positionals: name,
    command: 'group.remove',
    args: nameArgs,
    show: done((_, argv) => `group ${textOf(argv, 'name')} removed`),
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list groups',
    command: 'group.list',
    show: table('name', 'members', 'provisionedBy', 'id'),
  }),
  adminLeaf({
    usage: 'show <name>',
    describe: 'show a group and its members',
    positionals: name,
    command: 'group.show',
    args: nameArgs,
    show: fields,
  }),
];

const member = {
  group: { type: 'string', describe: 'group name', demandOption: true },
  user: { type: 'string', describe: 'user name', demandOption: true },
} as const;

const memberArgs = (argv: Readonly<Record<string, unknown>>) => ({
  group: textOf(argv, 'group'),
  user: textOf(argv, 'user'),
});

const memberLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <group> <user>',
    describe: 'put a user into a group',
    positionals: member,
    options: { until: { type: 'string', describe: 'when the membership ends' } },
    command: 'group.member.add',
    args: (argv) => ({
      ...memberArgs(argv),
      ...(typeof argv['until'] === 'string'
        ? { untilMs: parseMoment(argv['until'], Date.now()) }
        : {}),
    }),
    show: done((_, argv) => `${textOf(argv, 'user')} is in ${textOf(argv, 'group')}`),
  }),
  adminLeaf({
    usage: 'remove <group> <user>',
    describe: 'take a user out of a group',
    positionals: member,
    command: 'group.member.remove',
    args: memberArgs,
    show: done(
      (result, argv) =>
        `${textOf(argv, 'user')} is no longer in ${textOf(argv, 'group')}; tunnels ended: ${String(result['tunnelsEnded'])}`,
    ),
  }),
];

/** `group …`, with `group member …` below it. */
export function addGroupCommands(y: Argv): Argv {
  return y.command('group', 'groups of users and their members', (inner) =>
    addGroup(leaves.reduce(addLeaf, inner), 'member', 'members of a group', memberLeaves)
      .demandCommand(1, 1, 'name a command: add, remove, list, show, member')
      .strict(),
  );
}
