import { notAvailableYet } from '../../protocol/host/index.ts';
import {
  adminLeaf,
  done,
  fields,
  maybe,
  printJson,
  table,
  talk,
  textOf,
  type Leaf,
} from './command.ts';

const path = {
  path: { type: 'string', describe: 'directory of *.cedar files, or one file', demandOption: true },
} as const;

/** Cedar is large; only the commands that look at files need it. */
const loadPolicy = () => import('../control-plane/policy/index.ts');

const later = (word: string, argument: string): Leaf => ({
  usage: `${word} <${argument}>`,
  describe: 'not available yet',
  positionals: { [argument]: { type: 'string', demandOption: true } },
  run: () => notAvailableYet(`policy ${word}`),
});

export const policyLeaves: readonly Leaf[] = [
  {
    usage: 'check <path>',
    describe: 'validate policy files; needs no running relay',
    positionals: path,
    run: async (argv) => {
      const { checkPolicies, formatProblem, readPolicyFiles } = await loadPolicy();
      const { files, policies, warnings } = await checkPolicies(
        readPolicyFiles(textOf(argv, 'path')),
      );
      const counts = { policies: policies.length, files: Object.keys(files).length };
      if (argv['json'] === true) printJson({ valid: true, ...counts, warnings });
      else {
        for (const warning of warnings) talk(`warning: ${formatProblem(warning)}`);
        talk(`ok: ${counts.policies} policies in ${counts.files} files`);
      }
    },
  },
  adminLeaf({
    usage: 'apply <path>',
    describe: 'make these files the whole policy, or leave the old one untouched',
    positionals: path,
    options: { 'dry-run': { type: 'boolean', describe: 'only tell what would happen' } },
    command: 'policy.apply',
    args: async (argv) => ({
      files: (await loadPolicy()).readPolicyFiles(textOf(argv, 'path')),
      dryRun: argv['dryRun'] === true,
    }),
    show: done((result, argv) => {
      const ended = String(result['tunnelsEnded']);
      return argv['dryRun'] === true
        ? `would end ${ended} open tunnels; nothing was changed`
        : `policy version ${String(result['version'])} is active; tunnels ended: ${ended}`;
    }),
  }),
  adminLeaf({
    usage: 'show',
    describe: 'show the active policy',
    command: 'policy.show',
    show: (result) => {
      const { version, files } = result as { version: number; files: Record<string, string> };
      talk(`version ${version}`);
      for (const [name, text] of Object.entries(files)) {
        process.stdout.write(`// ${name}\n${text.trimEnd()}\n\n`);
      }
    },
  }),
  adminLeaf({
    usage: 'schema',
    describe: 'show the schema that policies are checked against',
    command: 'policy.schema',
    show: (result) => {
      process.stdout.write(`${(result as { schema: string }).schema.trimEnd()}\n`);
    },
  }),
  adminLeaf({
    usage: 'why',
    describe: 'explain whether a user reaches an app',
    options: {
      user: { type: 'string', describe: 'user name', demandOption: true },
      app: { type: 'string', describe: 'app name', demandOption: true },
      device: { type: 'string', describe: 'device id; else the one seen last' },
    },
    command: 'policy.why',
    args: (argv) => ({
      user: textOf(argv, 'user'),
      app: textOf(argv, 'app'),
      ...maybe(argv, 'device'),
    }),
    show: fields,
  }),
  adminLeaf({
    usage: 'who',
    describe: 'list who reaches an app',
    options: { app: { type: 'string', describe: 'app name', demandOption: true } },
    command: 'policy.who',
    args: (argv) => ({ app: textOf(argv, 'app') }),
    show: table('user', 'device', 'allowed', 'policies'),
  }),
  later('test', 'file'),
  later('diff', 'path'),
  later('replay', 'decision'),
];
