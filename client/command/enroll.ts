import { parseEnrolmentCode, ZtnaError } from '../../protocol/index.ts';
import {
  enrol,
  loadIdentity,
  machineFacts,
  printJsonLine,
  readSecretArgument,
  saveIdentity,
  type Identity,
} from '../../protocol/host/index.ts';
import { Agent } from '../agent/agent.ts';
import { openProfile, type Profile } from '../agent/profile.ts';
import { askLine, askNewPassword, canAsk, cannotAsk, readStdinLines } from '../ask.ts';
import { enrolByBrowser, type DeviceEnrolment } from '../sign-in/enrol-by-browser.ts';
import { rememberProvider } from '../sign-in/last-provider.ts';
import { findBrowser } from '../sign-in/open-browser.ts';
import { showInvitation } from '../sign-in/show-invitation.ts';
import { openLogger, print, say, type GlobalOptions } from './context.ts';

export interface EnrollOptions extends GlobalOptions {
  /** The code itself, `-` for standard input, `file:PATH`, or the relay's address for a sign-in in a browser. */
  readonly code: string;
  readonly isReplacing: boolean;
  readonly isPasswordOnStdin: boolean;
  /** The code is a service's, which has no password. */
  readonly isService: boolean;
  /** False: a browser of another machine, whose page ends with a code. */
  readonly isBrowser: boolean;
  /** That code comes on standard input. */
  readonly isCodeOnStdin: boolean;
}

/** Enrols this machine with a one-time code, which sets the user's password, or by a sign-in in a browser; signs in. */
export async function runEnroll(options: EnrollOptions): Promise<void> {
  const origin = readOrigin(options);
  const profile = await openProfile(options.profile);
  const present = await loadIdentity(profile.dir);
  if (present && !options.isReplacing) {
    throw new ZtnaError('ERR_IDENTITY_ALREADY_ENROLLED', {
      message: `this machine is enrolled already at ${present.relayUrl}`,
      hint: 'use --profile NAME for another organisation, or --replace to enrol anew',
      hop: 'client',
    });
  }
  const { identity, answer } =
    origin === undefined ? await enrolByCode(options) : await enrolOnPage(origin, options);
  await saveIdentity(profile.dir, identity);
  if (origin !== undefined && answer.signedIn) await noteProvider(profile, identity);
  if (options.json) {
    printJsonLine({
      device: answer.id,
      user: answer.user,
      relay: identity.relayUrl,
      signedIn: answer.signedIn,
      pending: answer.pending === true,
    });
  } else tellEnrolment(answer, identity.relayUrl, options);
}

/** The next sign-in goes where this one went, as far as the relay can be asked. */
async function noteProvider(profile: Profile, identity: Identity): Promise<void> {
  try {
    const agent = await Agent.start({ profile, identity, logger: openLogger() });
    const { session } = agent;
    await agent.stop();
    if (session?.provider !== undefined) await rememberProvider(profile, session.provider);
  } catch {
    // The machine is enrolled all the same; the next sign-in asks where to go.
  }
}

function tellEnrolment(
  { id, user, signedIn, pending }: DeviceEnrolment['answer'],
  relayUrl: string,
  { isService }: EnrollOptions,
): void {
  print(id);
  say(`enrolled this machine for ${user} at ${relayUrl}`);
  if (pending === true) {
    say('an administrator has to approve it; to see whether that is done: ztna status');
    say('then, run: ztna login');
    return;
  }
  const next = isService ? `ztna login --service ${user} --key-file FILE` : 'ztna login';
  say(signedIn ? `signed in as ${user}` : `not signed in; next, run: ${next}`);
  say('see what you may reach: ztna apps');
}

/** The relay's address where one was given in place of a code. Throws ERR_CONFIG_USAGE for one that is none. */
function readOrigin(options: EnrollOptions): string | undefined {
  const { code, isPasswordOnStdin, isService, isCodeOnStdin, isBrowser } = options;
  if (!/^https?:/i.test(code)) {
    if (!isCodeOnStdin && isBrowser) return undefined;
    throw usage('--no-browser and --code-stdin go with an address', 'ztna enroll https://HOST');
  }
  const url = URL.canParse(code) ? new URL(code) : undefined;
  const isBare = url?.pathname === '/' && url.search === '' && url.hash === '';
  if (!isBare || url.protocol !== 'https:' || url.username !== '' || url.password !== '') {
    throw usage(
      'that is not the address of a relay',
      'it looks like https://HOST or https://HOST:PORT',
    );
  }
  if (isPasswordOnStdin || isService) {
    throw usage(
      '--password-stdin and --service go with a one-time code',
      'leave them out, or give the code in place of the address',
    );
  }
  if (isCodeOnStdin && isBrowser) {
    throw usage('--code-stdin is for a browser of another machine', 'add --no-browser');
  }
  return url.origin;
}

function usage(message: string, hint: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', { message, hint, hop: 'client' });
}

async function enrolByCode(options: EnrollOptions): Promise<DeviceEnrolment> {
  const secrets = await readSecrets(options);
  const code = parseEnrolmentCode(secrets.code);
  const { identity, answer } = await enrol({
    code,
    ...machineFacts(),
    password: options.isService ? null : (secrets.password ?? (await askNewPassword())),
    expectRole: 'device',
  });
  if (answer.role !== 'device') throw new ZtnaError('ERR_IDENTITY_ROLE');
  return { identity, answer };
}

async function enrolOnPage(origin: string, options: EnrollOptions): Promise<DeviceEnrolment> {
  const browser = options.isBrowser ? findBrowser() : undefined;
  const isHere = browser !== undefined;
  if (!isHere && !options.isCodeOnStdin && !canAsk()) {
    throw cannotAsk('add --no-browser and --code-stdin, and give the code that the page shows');
  }
  return enrolByBrowser({
    origin,
    browser,
    invite: (page) => {
      if (options.json) {
        printJsonLine({ event: 'sign_in', url: page.url });
        return;
      }
      const draw = (text: string): void => void process.stderr.write(`${text}\n`);
      const elsewhere = `ztna enroll ${origin} --no-browser`;
      showInvitation({ ...page, userCode: null }, { isHere, elsewhere, say, draw });
      if (isHere) say('waiting for you there; Ctrl-C gives up');
    },
    askCode: async (signal) =>
      options.isCodeOnStdin
        ? ((await readStdinLines())[0] ?? '')
        : askLine('the code that the page shows at the end', undefined, signal),
  });
}

/** The code and, with --password-stdin, the password: two lines of standard input when both come from there. */
async function readSecrets(
  options: EnrollOptions,
): Promise<{ readonly code: string; readonly password: string | undefined }> {
  if (!options.isPasswordOnStdin) {
    if (!options.isService && !canAsk()) throw cannotAsk('give the password with --password-stdin');
    return { code: await readSecretArgument(options.code), password: undefined };
  }
  if (options.code !== '-') {
    const [password = ''] = await readStdinLines();
    return { code: await readSecretArgument(options.code), password };
  }
  const [code = '', password = ''] = await readStdinLines();
  return { code, password };
}
