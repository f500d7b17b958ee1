import type { Argv } from 'yargs';
import { notAvailableYet } from '../protocol/host/index.ts';
import { ZtnaError } from '../protocol/index.ts';
import { parseAppName } from './app-name.ts';
import { runApps, runWhy } from './command/apps.ts';
import { runConnect } from './command/connect.ts';
import type { GlobalOptions } from './command/context.ts';
import { runEnroll } from './command/enroll.ts';
import { runMfaAdd, runMfaList, runMfaRemove } from './command/mfa.ts';
import { runRun } from './command/run.ts';
import { runLogin, runLogout } from './command/sign-in.ts';
import { runStatus } from './command/status.ts';
import { environment } from './environment.ts';

/** Commands of the contract that answer `not available yet`, with what they will be for. */
const laterCommands: Readonly<Record<string, string>> = {
  devices: 'list and revoke your own devices',
  open: 'open an app in the browser',
  ssh: 'run ssh through an app',
  'ssh-config': 'print or write a block for ssh',
  proxy: 'reach apps through a local proxy',
  agent: 'keep channel and tunnels for all commands',
  posture: 'show what this device reports of itself',
  doctor: 'find what is wrong with this installation',
  completion: 'print a completion script',
};

const epilogue = [
  'Exit codes: 0 ok, 1 other, 2 usage, 3 relay unreachable, 4 sign-in needed, 5 denied by policy,',
  '6 device posture, 7 access revoked or expired while connected, 8 app or connector offline,',
  '9 local port busy, 130 interrupted. `ztna run` gives the code of its own command.',
  '',
  'Environment:',
  ...Object.entries(environment).map(([name, use]) => `  ${name.padEnd(26)}${use}`),
].join('\n');

/**
 * True when the first word is a command that is not available yet. Such a command takes any arguments, which
 * yargs would otherwise refuse before it is asked.
 */
export function laterCommandOf(argv: readonly string[]): string | undefined {
  const word = argv.find((argument, i) => !argument.startsWith('-') && argv[i - 1] !== '--profile');
  return word !== undefined && Object.hasOwn(laterCommands, word) ? word : undefined;
}

/** Builds the command tree of `ztna`. */
export function buildCommandLine(yargs: Argv): Argv {
  const global = yargs
    .option('profile', one('which organisation to act for (default: default)'))
    .option('json', { type: 'boolean', default: false, describe: 'one JSON object per line' })
    .epilogue(epilogue);
  withIdentityCommands(global);
  withTunnelCommands(global);
  for (const [name, describe] of Object.entries(laterCommands)) {
    global.command(
      name,
      `${describe} (not available yet)`,
      (y) => y,
      () => notAvailableYet(name),
    );
  }
  return global;
}

type Global = Argv<{ profile: string | undefined; json: boolean }>;

function withIdentityCommands(yargs: Global): void {
  yargs.command(
    'enroll <code>',
    'enrol this machine with a one-time code: CODE, - (standard input) or file:PATH',
    (y) =>
      y
        // Declared a string, yargs would make an empty one of `-`; left open, it makes `true` of it.
        .positional('code', { demandOption: true })
        .option('replace', flag('give up the present enrolment'))
        .option('password-stdin', flag('read the password from standard input')),
    (a) =>
      runEnroll({
        ...globalOf(a),
        code: a.code === true ? '-' : single('code', a.code),
        isReplacing: a.replace,
        isPasswordOnStdin: a.passwordStdin,
      }),
  );
  yargs.command(
    'login',
    'sign in',
    (y) =>
      y
        .option('user', one('who signs in (default: the enrolled user)'))
        .option('password-stdin', flag('read the password from standard input'))
        .option('otp', one('one-time password'))
        .option('provider', one('sign in at a provider (not available yet)'))
        .option('device-code', flag('sign in on another device (not available yet)'))
        .option('browser', { type: 'boolean', default: true, hidden: true }),
    (a) => {
      if (a.provider !== undefined) notAvailableYet('login --provider');
      if (a.deviceCode) notAvailableYet('login --device-code');
      return runLogin({
        ...globalOf(a),
        user: optional('user', a.user),
        isPasswordOnStdin: a.passwordStdin,
        otp: optional('otp', a.otp),
      });
    },
  );
  yargs.command(
    'logout',
    'sign out; tunnels end',
    (y) => y,
    (a) => runLogout(globalOf(a)),
  );
  yargs.command(
    'status',
    'show who this machine is, as the relay sees it',
    (y) => y,
    (a) => runStatus(globalOf(a)),
  );
  yargs.command('mfa', 'one-time passwords', (y) =>
    y
      .command(
        'add',
        'turn them on',
        (m) =>
          m.option(
            'otp-stdin',
            flag('print the secret on standard output and read a code from standard input'),
          ),
        (a) => runMfaAdd({ ...globalOf(a), isOtpOnStdin: a.otpStdin }),
      )
      .command(
        'list',
        'show whether they are on',
        (m) => m,
        (a) => runMfaList(globalOf(a)),
      )
      .command(
        'remove',
        'turn them off',
        (m) => m.option('otp', one('a present one-time password')),
        (a) => runMfaRemove({ ...globalOf(a), otp: optional('otp', a.otp) }),
      )
      .demandCommand(1, 'say what to do: add, list or remove'),
  );
}

function withTunnelCommands(yargs: Global): void {
  yargs.command(
    'apps',
    'list what you may reach',
    (y) => y,
    (a) => runApps(globalOf(a)),
  );
  yargs.command(
    'why <app>',
    'explain why you may or may not reach an app',
    (y) => y.positional('app', { type: 'string', demandOption: true }),
    (a) => runWhy({ ...globalOf(a), app: single('app', a.app) }),
  );
  yargs.command(
    'connect <app>',
    'reach an app on a local port, until interrupted',
    (y) =>
      y
        .positional('app', { type: 'string', demandOption: true })
        .option('listen', one('PORT or ADDR:PORT to listen on; 0 for any'))
        .option('listen-anywhere', flag('allow an address beyond loopback, where policy does'))
        .option('stdio', flag('carry one connection on standard input and output'))
        .option('remember', flag('use this --listen for the app from now on')),
    (a) =>
      runConnect({
        ...globalOf(a),
        app: parseAppName(a.app),
        listen: optional('listen', a.listen),
        isAnywhere: a.listenAnywhere,
        isStdio: a.stdio,
        isRemembering: a.remember,
      }),
  );
  yargs.command(
    'run <app>',
    'run a command with an app behind {{host}} {{port}}: ztna run APP -- CMD …',
    (y) => y.positional('app', { type: 'string', demandOption: true }),
    (a) => {
      const command = (a['--'] as readonly unknown[] | undefined)?.map(String) ?? [];
      return runRun({ ...globalOf(a), app: parseAppName(a.app), command });
    },
  );
}

interface Parsed {
  readonly profile: unknown;
  readonly json: boolean;
}

function globalOf(parsed: Parsed): GlobalOptions {
  return { profile: optional('profile', parsed.profile), json: parsed.json };
}

const one = (describe: string) => ({ type: 'string', describe }) as const;

const flag = (describe: string) => ({ type: 'boolean', default: false, describe }) as const;

/** An option that may be given once. */
function optional(name: string, value: unknown): string | undefined {
  return value === undefined ? undefined : single(name, value);
}

function single(name: string, value: unknown): string {
  if (typeof value === 'string' && value !== '') return value;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: `give ${name} one value`,
    hint: 'see: ztna --help',
    hop: 'client',
  });
}
