import {
  environmentNames,
  oneValue,
  optionalValue,
  runCommandLine,
  warnUnknownEnvironment,
  ZtnaError,
} from '../protocol/host/early.ts';
import type { Argv } from 'yargs';

const directoryVariable = 'ZTNA_CONNECTOR_DIR';

/** Environment names that are this program's alone. */
export const connectorEnvironment: Readonly<Record<string, string>> = {
  [directoryVariable]: 'directory for its state, when --dir is absent',
};

const epilogue = [
  'DIR/connector.yaml holds the apps and is read again when it changes:',
  '  apps:',
  '    wiki: tcp://127.0.0.1:8080',
  '    shop: { target: tcp://127.0.0.1:80, health: { http: /healthz } }',
  'drainFor is how long a stop waits for tunnels in use (25s).',
  '',
  'Environment:',
  ...Object.entries({ ...connectorEnvironment, ...environmentNames }).map(
    ([name, use]) => `  ${name.padEnd(26)}${use}`,
  ),
].join('\n');

/** Runs `ztna-connector` with these arguments, to its exit code. */
export async function runZtnaConnector(argv: readonly string[]): Promise<void> {
  warnUnknownEnvironment('ztna-connector', Object.keys(connectorEnvironment));
  await runCommandLine({ program: 'ztna-connector', build: buildCommandLine, argv });
}

/** Builds the command tree of `ztna-connector`. */
export function buildCommandLine(yargs: Argv): Argv {
  return yargs
    .option('dir', {
      type: 'string',
      requiresArg: true,
      describe: 'directory for its state (0700)',
    })
    .epilogue(epilogue)
    .command(
      'enroll <code>',
      'enrol with a one-time code: CODE, - (standard input) or file:PATH',
      (y) => y.positional('code', { type: 'string', demandOption: true }),
      async (a) =>
        (await import('./command/enroll.ts')).runEnroll({
          dir: dirOf(a.dir),
          code: single('code', a.code),
        }),
    )
    .command(
      'run',
      'serve apps through the relay until told to stop',
      (y) =>
        y
          .option('enroll', {
            type: 'string',
            requiresArg: true,
            describe: 'code for the first start: - (standard input) or file:PATH',
          })
          .option('app', {
            type: 'string',
            array: true,
            requiresArg: true,
            default: [] as string[],
            describe: 'an app to serve, NAME=tcp://HOST:PORT; may be repeated',
          })
          .option('admin-listen', {
            type: 'string',
            requiresArg: true,
            describe: 'loopback ADDR:PORT for /livez, /readyz and /metrics',
          }),
      async (a) =>
        (await import('./command/run.ts')).runConnector({
          dir: dirOf(a.dir),
          enroll: secretSource(optional('enroll', a.enroll)),
          apps: a.app,
          adminListen: optional('admin-listen', a.adminListen),
        }),
    )
    .command(
      'status',
      'show what the connector of this directory does',
      (y) =>
        y
          .option('json', { type: 'boolean', default: false, describe: 'one JSON object' })
          .option('ready', {
            type: 'boolean',
            default: false,
            describe: 'exit 0 or 8, for probes',
          }),
      async (a) =>
        (await import('./command/status.ts')).runStatus({
          dir: dirOf(a.dir),
          json: a.json,
          isReadyAsked: a.ready,
        }),
    );
}

function dirOf(flag: unknown): string {
  const dir = optional('dir', flag) ?? process.env[directoryVariable];
  if (dir !== undefined && dir !== '') return dir;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: 'name the directory for the state of the connector',
    hint: 'add --dir DIR',
  });
}

/** The arguments of a long-lived process are there for everyone on the machine to read. */
function secretSource(source: string | undefined): string | undefined {
  if (source === undefined || source === '-' || source.startsWith('file:')) return source;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: '--enroll takes no code itself, since arguments are no secret',
    hint: 'give the code on standard input with --enroll -, or as --enroll file:PATH',
  });
}

const single = (name: string, value: unknown): string => oneValue('ztna-connector', name, value);

const optional = (name: string, value: unknown): string | undefined =>
  optionalValue('ztna-connector', name, value);
