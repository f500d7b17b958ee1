import type { Argv } from 'yargs';
import {
  notAvailableYet,
  oneValue,
  optionalValue,
  runCommandLine,
  warnUnknownEnvironment,
} from '../protocol/host/early.ts';
import type { GlobalOptions } from './command/context.ts';
import { environment } from './environment.ts';

// Each command is loaded when it is run: most of what one needs, `--help` and the others do not.
const command = {
  apps: () => import('./command/apps.ts'),
  connect: () => import('./command/connect.ts'),
  devices: () => import('./command/devices.ts'),
  enroll: () => import('./command/enroll.ts'),
  mfa: () => import('./command/mfa.ts'),
  posture: () => import('./command/posture.ts'),
  run: () => import('./command/run.ts'),
  serviceLogin: () => import('./command/service-login.ts'),
  signIn: () => import('./command/sign-in.ts'),
  status: () => import('./command/status.ts'),
  why: () => import('./command/why.ts'),
};

/** Commands of the contract that answer `not available yet`, with what they will be for. */
const laterCommands: Readonly<Record<string, string>> = {
  open: 'open an app in the browser',
  ssh: 'run ssh through an app',
  'ssh-config': 'print or write a block for ssh',
  proxy: 'reach apps through a local proxy',
  agent: 'keep channel and tunnels for all commands',
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

/** Runs `ztna` with these arguments, to its exit code. */
export async function runZtna(argv: readonly string[]): Promise<void> {
  warnUnknownEnvironment('ztna', Object.keys(environment));
  const later = laterCommandOf(argv);
  await runCommandLine({
    program: 'ztna',
    argv: later === undefined ? argv : [later],
    build: buildCommandLine,
  });
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

/** Ways to sign in that do not go with `--service`. */
const loginOfPersons = ['user', 'otp', 'provider', 'browser'];

type Global = Argv<{ profile: string | undefined; json: boolean }>;

function withIdentityCommands(yargs: Global): void {
  yargs.command(
    'enroll <code>',
    'enrol this machine: with a one-time code, or by signing in at https://HOST',
    (y) =>
      y
        .positional('code', {
          type: 'string',
          demandOption: true,
          describe: 'CODE, - (standard input), file:PATH, or https://HOST',
        })
        .option('replace', flag('give up the present enrolment'))
        .option('password-stdin', flag('read the password from standard input'))
        .option('service', flag('the code is a service’s: no password is asked'))
        .option('browser', {
          type: 'boolean',
          default: true,
          describe:
            'at https://HOST: --no-browser uses one of another machine, whose page ends with a code',
        })
        .option('code-stdin', flag('with --no-browser: read the code that the page shows')),
    async (a) =>
      (await command.enroll()).runEnroll({
        ...globalOf(a),
        code: single('code', a.code),
        isReplacing: a.replace,
        isPasswordOnStdin: a.passwordStdin,
        isService: a.service,
        isBrowser: a.browser,
        isCodeOnStdin: a.codeStdin,
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
        .option('provider', one('where to sign in: a provider of the relay, or local'))
        .option('device-code', flag('sign in on another machine or phone, at the provider’s page'))
        .option('browser', {
          type: 'boolean',
          describe: 'sign in on the relay’s page; --no-browser: with a browser of another machine',
        })
        .option(
          'ticket-stdin',
          flag('with --no-browser: read the ticket that the page shows from standard input'),
        )
        .option('service', one('sign a service in, which stays so by itself; nothing is asked'))
        .option('key-file', one('with --service: its Ed25519 private key in PEM'))
        .option('token-file', one('with --service: a token of an issuer that is trusted for it'))
        .conflicts('service', loginOfPersons),
    async (a) => {
      const { runLogin, tellSession } = await command.signIn();
      const service = optional('service', a.service);
      const keyFile = optional('key-file', a.keyFile);
      const tokenFile = optional('token-file', a.tokenFile);
      if ([service, keyFile, tokenFile].some((given) => given !== undefined)) {
        const { runServiceLogin } = await command.serviceLogin();
        const isByPerson = a.passwordStdin || a.deviceCode || a.ticketStdin;
        const options = { ...globalOf(a), service, keyFile, tokenFile, isByPerson };
        return runServiceLogin(options, (session) => {
          tellSession(session, options);
        });
      }
      return runLogin({
        ...globalOf(a),
        user: optional('user', a.user),
        isPasswordOnStdin: a.passwordStdin,
        otp: optional('otp', a.otp),
        provider: optional('provider', a.provider),
        isDeviceCode: a.deviceCode,
        isBrowser: a.browser,
        isTicketOnStdin: a.ticketStdin,
      });
    },
  );
  yargs.command(
    'logout',
    'sign out; tunnels end',
    (y) => y.option('browser', browserFlag),
    async (a) => (await command.signIn()).runLogout({ ...globalOf(a), isBrowser: a.browser }),
  );
  yargs.command(
    'status',
    'show who this machine is, as the relay sees it',
    (y) => y,
    async (a) => (await command.status()).runStatus(globalOf(a)),
  );
  yargs.command(
    'posture',
    'show what this device tells of itself, what your apps need of it, and how to mend it',
    (y) => y,
    async (a) => (await command.posture()).runPosture(globalOf(a)),
  );
  yargs.command('devices', 'your own devices', (y) =>
    y
      .command(
        'list',
        'show them',
        (d) => d,
        async (a) => (await command.devices()).runDevicesList(globalOf(a)),
      )
      .command(
        'revoke <id>',
        'end one for good, such as a laptop that was lost',
        (d) =>
          d
            .positional('id', { type: 'string', demandOption: true })
            .option('yes', flag('also where it is this machine')),
        async (a) =>
          (await command.devices()).runDevicesRevoke({
            ...globalOf(a),
            device: single('id', a.id),
            isSure: a.yes,
          }),
      )
      .demandCommand(1, 'say what to do: list or revoke'),
  );
  withFactorCommands(yargs);
}

function withFactorCommands(yargs: Global): void {
  yargs.command('mfa', 'what you prove a sign-in with, besides a password', (y) =>
    y
      .command(
        'add',
        'turn one-time passwords on, or add a passkey',
        (m) =>
          m
            .option('passkey', flag('add a passkey, on the relay’s account page'))
            .option('browser', browserFlag)
            .option(
              'otp-stdin',
              flag('print the secret on standard output and read a code from standard input'),
            ),
        async (a) =>
          (await command.mfa()).runMfaAdd({
            ...globalOf(a),
            isOtpOnStdin: a.otpStdin,
            isPasskey: a.passkey,
            isBrowser: a.browser,
          }),
      )
      .command(
        'list',
        'show one-time passwords, recovery codes and passkeys',
        (m) => m,
        async (a) => (await command.mfa()).runMfaList(globalOf(a)),
      )
      .command(
        'remove',
        'turn one-time passwords off, or remove a passkey',
        (m) =>
          m
            .option('otp', one('a present one-time password'))
            .option('passkey', one('the passkey to remove: its name, or how its id begins')),
        async (a) =>
          (await command.mfa()).runMfaRemove({
            ...globalOf(a),
            otp: optional('otp', a.otp),
            passkey: optional('passkey', a.passkey),
          }),
      )
      .command(
        'recovery',
        'print new recovery codes, in place of those of before',
        (m) => m.option('otp', one('a present one-time password')),
        async (a) =>
          (await command.mfa()).runMfaRecovery({ ...globalOf(a), otp: optional('otp', a.otp) }),
      )
      .demandCommand(1, 'say what to do: add, list, remove or recovery'),
  );
}

function withTunnelCommands(yargs: Global): void {
  yargs.command(
    'apps',
    'list what you may reach',
    (y) => y,
    async (a) => (await command.apps()).runApps(globalOf(a)),
  );
  yargs.command(
    'why <app>',
    'explain why you may or may not reach an app',
    (y) => y.positional('app', { type: 'string', demandOption: true }),
    async (a) => (await command.why()).runWhy({ ...globalOf(a), app: single('app', a.app) }),
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
    async (a) =>
      (await command.connect()).runConnect({
        ...globalOf(a),
        app: a.app,
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
    async (a) => {
      const words = (a['--'] as readonly unknown[] | undefined)?.map(String) ?? [];
      return (await command.run()).runRun({ ...globalOf(a), app: a.app, command: words });
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

const browserFlag = {
  type: 'boolean',
  default: true,
  describe: 'open the page; --no-browser only says where it is',
} as const;

const single = (name: string, value: unknown): string => oneValue('ztna', name, value);

const optional = (name: string, value: unknown): string | undefined =>
  optionalValue('ztna', name, value);
