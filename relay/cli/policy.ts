import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { escapeTerminal, parseDurationMs } from '../../protocol/host/index.ts';
import { toZtnaError, ZtnaError } from '../../protocol/index.ts';
import { readRelayConfig } from '../config.ts';
import { showReplay, showWhy } from './why.ts';
import {
  adminLeaf,
  dirOf,
  done,
  maybe,
  printJson,
  table,
  talk,
  textOf,
  type Arguments,
  type Leaf,
} from './command.ts';

const path = {
  path: { type: 'string', describe: 'directory of *.cedar files, or one file', demandOption: true },
} as const;

/** Cedar is large; only the commands that look at files need it. */
const loadPolicy = () => import('../control-plane/policy/index.ts');

export const policyLeaves: readonly Leaf[] = [
  {
    usage: 'check <path>',
    describe: 'validate policy files; needs no running relay',
    positionals: path,
    run: async (argv) => {
      const { checkPolicies, formatProblem, readPolicyFiles } = await loadPolicy();
      const { files, policies, warnings } = await checkPolicies(
        readPolicyFiles(textOf(argv, 'path')),
        { extraChecks: await checksOf(dirOf(argv)) },
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
      const suspended = String(result['tunnelsSuspended']);
      return argv['dryRun'] === true
        ? `would end ${ended} open tunnels and suspend ${suspended}; nothing was changed`
        : `policy version ${String(result['version'])} is active; tunnels ended: ${ended}, suspended: ${suspended}`;
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
    describe: 'name the rules that decide whether a user reaches an app, and what they miss',
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
    show: showWhy,
  }),
  adminLeaf({
    usage: 'who',
    describe: 'list who reaches an app',
    options: { app: { type: 'string', describe: 'app name', demandOption: true } },
    command: 'policy.who',
    args: (argv) => ({ app: textOf(argv, 'app') }),
    show: table('user', 'device', 'allowed', 'policies'),
  }),
  {
    usage: 'test <file>',
    describe: 'hold policies to what a team expects of them (YAML); needs no running relay',
    positionals: { file: { type: 'string', describe: 'expectations', demandOption: true } },
    options: {
      policies: {
        type: 'string',
        describe: 'directory of *.cedar files; else what the file names',
      },
    },
    run: testPolicies,
  },
  adminLeaf({
    usage: 'diff <path>',
    describe: 'tell who would gain or lose what by these files, going by what was asked before',
    positionals: path,
    options: { over: { type: 'string', describe: 'how far back', default: '7d' } },
    command: 'policy.diff',
    args: async (argv) => ({
      files: (await loadPolicy()).readPolicyFiles(textOf(argv, 'path')),
      overMs: parseDurationMs(textOf(argv, 'over')),
    }),
    show: (result, argv) => {
      const { compared, changes } = result as { compared: number; changes: unknown[] };
      talk(`compared ${String(compared)} situations of the last ${textOf(argv, 'over')}`);
      if (changes.length === 0) talk('nobody gains or loses anything');
      else table('app', 'user', 'change', 'because', 'situations', 'decision')(changes, argv);
    },
  }),
  adminLeaf({
    usage: 'replay <decision>',
    describe: 'decide again what was decided, by the policy and the facts of that time',
    positionals: {
      decision: { type: 'string', describe: 'its id, dec_…', demandOption: true },
    },
    command: 'policy.replay',
    args: (argv) => ({ decision: textOf(argv, 'decision') }),
    show: showReplay,
  }),
];

/** The deployment's own posture checks, where there is a deployment. */
async function checksOf(dir: string): Promise<string[]> {
  try {
    return (await readRelayConfig(dir)).posture.checks.map(({ id }) => id);
  } catch (error) {
    if (toZtnaError(error).code === 'ERR_CONFIG_NOT_FOUND') return [];
    throw error;
  }
}

/** Exits 1 when an expectation does not hold. */
async function testPolicies(argv: Arguments): Promise<void> {
  const policy = await loadPolicy();
  const file = textOf(argv, 'file');
  const { policies, checks, tests } = policy.parseExpectations(readExpectations(file), file);
  const named = typeof argv['policies'] === 'string' ? argv['policies'] : undefined;
  const from = named ?? (policies === undefined ? undefined : resolve(dirname(file), policies));
  if (from === undefined) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: `${file} names no policies`,
      hint: 'write policies: DIR at its top, or give --policies DIR',
    });
  }
  const engine = new policy.PolicyEngine({ extraChecks: checks });
  const options = { extraChecks: checks };
  engine.activate(await policy.checkPolicies(policy.readPolicyFiles(from), options), 1);
  const outcomes = policy.checkExpectations(engine, tests, Date.now());
  const failed = outcomes.filter(({ passed }) => !passed);
  if (argv['json'] === true) printJson(outcomes);
  else {
    for (const { passed, name, expected, actual, by, errors, conditions } of outcomes) {
      process.stdout.write(`${passed ? 'ok  ' : 'FAIL'} ${escapeTerminal(name)}\n`);
      if (passed) continue;
      const deciding = by.length > 0 ? ` by ${by.join(', ')}` : '';
      talk(`     expected ${expected}, got ${actual}${deciding}`);
      for (const error of errors) talk(`     error: ${error}`);
      for (const { what, actual: is, required } of conditions) {
        talk(`     ${what} is ${is}, would have to be ${required}`);
      }
    }
    talk(`${String(outcomes.length - failed.length)} hold, ${String(failed.length)} do not`);
  }
  if (failed.length > 0) process.exitCode = 1;
}

function readExpectations(file: string): string {
  const stat = statSync(file, { throwIfNoEntry: false });
  if (!stat?.isFile()) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `there is no file ${file}` });
  }
  const text = readFileSync(file, 'utf8');
  if (Buffer.byteLength(text) <= maxExpectationFileBytes) return text;
  throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${file} is too large` });
}

/** Larger files of expectations are a mistake. */
const maxExpectationFileBytes = 1_048_576;
