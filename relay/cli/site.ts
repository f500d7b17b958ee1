import { adminLeaf, done, fields, listOf, maybe, table, textOf, type Leaf } from './command.ts';
import { parseLabels } from './value.ts';

const siteName = { name: { type: 'string', describe: 'site name', demandOption: true } } as const;
const appName = { name: { type: 'string', describe: 'app name', demandOption: true } } as const;
const nameArgs = (argv: Readonly<Record<string, unknown>>) => ({ name: textOf(argv, 'name') });

export const siteLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <name>',
    describe: 'add a site: interchangeable connectors',
    positionals: siteName,
    command: 'site.add',
    args: nameArgs,
    show: done((_, argv) => `site ${textOf(argv, 'name')} added`),
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list sites',
    command: 'site.list',
    show: table('name', 'apps', 'connectors', 'id'),
  }),
  adminLeaf({
    usage: 'show <name>',
    describe: 'show a site',
    positionals: siteName,
    command: 'site.show',
    args: nameArgs,
    show: fields,
  }),
  adminLeaf({
    usage: 'remove <name>',
    describe: 'remove an empty site',
    positionals: siteName,
    command: 'site.remove',
    args: nameArgs,
    show: done((_, argv) => `site ${textOf(argv, 'name')} removed`),
  }),
];

const settings = {
  site: { type: 'string', describe: 'the site whose connectors serve it' },
  kind: { choices: ['tcp', 'udp', 'http', 'ssh', 'rdp', 'postgres'], describe: 'what it speaks' },
  label: { type: 'string', array: true, nargs: 1, describe: 'K=V, a tag that policy may read' },
  port: { type: 'number', describe: 'local port that clients prefer' },
} as const;

function appArgs(argv: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const labels = listOf(argv, 'label');
  return {
    name: textOf(argv, 'name'),
    ...maybe(argv, 'site'),
    ...maybe(argv, 'kind'),
    ...(labels.length > 0 ? { labels: parseLabels(labels) } : {}),
    ...(typeof argv['port'] === 'number' ? { portHint: argv['port'] } : {}),
  };
}

export const appLeaves: readonly Leaf[] = [
  adminLeaf({
    usage: 'add <name>',
    describe: 'add a private app',
    positionals: appName,
    options: { ...settings, site: { ...settings.site, demandOption: true } },
    command: 'app.add',
    args: appArgs,
    show: done((_, argv) => `app ${textOf(argv, 'name')} added`),
  }),
  adminLeaf({
    usage: 'set <name>',
    describe: 'change an app; labels given replace those it has',
    positionals: appName,
    options: settings,
    command: 'app.set',
    args: appArgs,
    show: done((_, argv) => `app ${textOf(argv, 'name')} changed`),
  }),
  adminLeaf({
    usage: 'list',
    describe: 'list apps',
    command: 'app.list',
    show: table('name', 'site', 'kind', 'online', 'portHint', 'id'),
  }),
  adminLeaf({
    usage: 'show <name>',
    describe: 'show an app',
    positionals: appName,
    command: 'app.show',
    args: nameArgs,
    show: fields,
  }),
  adminLeaf({
    usage: 'remove <name>',
    describe: 'remove an app and end its tunnels',
    positionals: appName,
    command: 'app.remove',
    args: nameArgs,
    show: done((_, argv) => `app ${textOf(argv, 'name')} removed`),
  }),
];
