import { parseEnrolmentCode, ZtnaError } from '../../protocol/index.ts';
import {
  enrol,
  loadIdentity,
  machineFacts,
  printJsonLine,
  readSecretArgument,
  saveIdentity,
} from '../../protocol/host/index.ts';
import { openProfile } from '../agent/profile.ts';
import { askNewPassword, canAsk, cannotAsk, readStdinLines } from '../ask.ts';
import { print, say, type GlobalOptions } from './context.ts';

export interface EnrollOptions extends GlobalOptions {
  /** The code itself, `-` for standard input, or `file:PATH`. */
  readonly code: string;
  readonly isReplacing: boolean;
  readonly isPasswordOnStdin: boolean;
  /** The code is a service's, which has no password. */
  readonly isService: boolean;
}

/** Enrols this machine with a one-time code, sets the user's password and signs in. */
export async function runEnroll(options: EnrollOptions): Promise<void> {
  if (/^https?:/.test(options.code)) {
    throw new ZtnaError('ERR_CONFIG_NOT_AVAILABLE', {
      message: 'not available yet: enrolment by single sign-on',
      hint: 'ask your administrator for a code, then run: ztna enroll CODE',
      hop: 'client',
    });
  }
  const profile = await openProfile(options.profile);
  const present = await loadIdentity(profile.dir);
  if (present && !options.isReplacing) {
    throw new ZtnaError('ERR_IDENTITY_ALREADY_ENROLLED', {
      message: `this machine is enrolled already at ${present.relayUrl}`,
      hint: 'use --profile NAME for another organisation, or --replace to enrol anew',
      hop: 'client',
    });
  }
  const secrets = await readSecrets(options);
  const code = parseEnrolmentCode(secrets.code);
  const { identity, answer } = await enrol({
    code,
    ...machineFacts(),
    password: options.isService ? null : (secrets.password ?? (await askNewPassword())),
    expectRole: 'device',
  });
  if (answer.role !== 'device') throw new ZtnaError('ERR_IDENTITY_ROLE');
  await saveIdentity(profile.dir, identity);
  if (options.json) {
    printJsonLine({
      device: answer.id,
      user: answer.user,
      relay: identity.relayUrl,
      signedIn: answer.signedIn,
    });
    return;
  }
  print(answer.id);
  say(`enrolled this machine for ${answer.user} at ${identity.relayUrl}`);
  const next = options.isService
    ? `ztna login --service ${answer.user} --key-file FILE`
    : 'ztna login';
  say(answer.signedIn ? `signed in as ${answer.user}` : `not signed in; next, run: ${next}`);
  say('see what you may reach: ztna apps');
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
