import { createInterface } from 'node:readline';
import { renderUnicodeCompact } from 'uqr';
import { ZtnaError } from '../../protocol/index.ts';
import { printJsonLine } from '../../protocol/host/index.ts';
import type { Agent } from '../agent/agent.ts';
import type { Answer } from '../agent/agent-messages.ts';
import { toIsoTime } from '../agent/tunnel-event.ts';
import { askLine, canAsk, cannotAsk } from '../ask.ts';
import { showPage } from '../sign-in/open-browser.ts';
import { print, say, withAgent, type GlobalOptions } from './context.ts';

export interface OtpOptions extends GlobalOptions {
  readonly otp: string | undefined;
}

export interface MfaAddOptions extends GlobalOptions {
  /** Print the secret's URI on standard output and read one code from standard input, for scripts. */
  readonly isOtpOnStdin: boolean;
  /** Add a passkey in place of one-time passwords. */
  readonly isPasskey: boolean;
  /** Only say where passkeys are added. */
  readonly isBrowser: boolean;
}

export interface MfaRemoveOptions extends OtpOptions {
  /** The passkey to remove, by its name or by how its id begins, in place of one-time passwords. */
  readonly passkey: string | undefined;
}

type Passkey = Answer<'factors'>['passkeys'][number];

/** Adds a factor: one-time passwords here, with a code as proof that the secret was stored; a passkey on the account page. */
export async function runMfaAdd(options: MfaAddOptions): Promise<void> {
  if (options.isPasskey) {
    await withAgent(options, async (agent) => addPasskey(agent, options));
    return;
  }
  if (!options.isOtpOnStdin && !canAsk()) throw cannotAsk('give the code with --otp-stdin');
  await withAgent(options, async (agent) => {
    const { uri } = await agent.request({ type: 'otp_begin' });
    let otp: string;
    if (options.isOtpOnStdin) {
      print(uri);
      otp = await readLine();
    } else {
      process.stderr.write(`${renderUnicodeCompact(uri)}\n`);
      say('scan this with your authenticator, or enter the secret by hand:');
      say(new URL(uri).searchParams.get('secret') ?? uri);
      otp = await askLine('the code that it shows');
    }
    await agent.request({ type: 'otp_confirm', otp });
    say('one-time passwords are on: the next sign-in asks for one');
    if (agent.knowsIdentity) say('for a lost phone, keep recovery codes: ztna mfa recovery');
  });
}

async function addPasskey(agent: Agent, { json, isBrowser }: MfaAddOptions): Promise<void> {
  const { accountUrl } = await agent.request({ type: 'factors' });
  if (json) {
    printJsonLine({ accountUrl });
    return;
  }
  const isShown = isBrowser && (await showPage(accountUrl));
  say(isShown ? 'a browser was opened to add a passkey; if you see none, open:' : 'add it at:');
  say(accountUrl);
}

/** Lists what the user proves a sign-in with, besides a password. */
export async function runMfaList(options: GlobalOptions): Promise<void> {
  await withAgent(options, async (agent) => {
    if (!agent.knowsIdentity) {
      const { enabled } = await agent.request({ type: 'otp_list' });
      if (options.json) printJsonLine({ kind: 'totp', enabled });
      else print(`totp      ${enabled ? 'on' : 'off'}`);
      return;
    }
    const { otp, recoveryCodesLeft, passkeys } = await agent.request({ type: 'factors' });
    if (options.json) {
      printJsonLine({ kind: 'totp', enabled: otp });
      printJsonLine({ kind: 'recovery', left: recoveryCodesLeft });
      for (const passkey of passkeys) printJsonLine({ kind: 'passkey', ...toRow(passkey) });
      return;
    }
    print(`totp      ${otp ? 'on' : 'off'}`);
    print(`recovery  ${String(recoveryCodesLeft)} codes left`);
    for (const passkey of passkeys) {
      const { id, name, addedAt, lastUsedAt } = toRow(passkey);
      print(
        `passkey   ${name}  (${id.slice(0, 12)})  added ${addedAt}, used ${lastUsedAt ?? 'never'}`,
      );
    }
    if (passkeys.length === 0) print('passkey   none; add one with: ztna mfa add --passkey');
  });
}

function toRow({ passkey, name, addedAtMs, lastUsedAtMs }: Passkey) {
  const lastUsedAt = lastUsedAtMs === null ? null : toIsoTime(lastUsedAtMs);
  return { id: passkey, name, addedAt: toIsoTime(addedAtMs), lastUsedAt };
}

/** Removes a passkey, or turns one-time passwords off; for these a present code proves that it is the user who does. */
export async function runMfaRemove(options: MfaRemoveOptions): Promise<void> {
  const { passkey } = options;
  if (passkey !== undefined) {
    await withAgent(options, async (agent) => {
      const { passkeys } = await agent.request({ type: 'factors' });
      const found = findPasskey(passkeys, passkey);
      await agent.request({ type: 'passkey_remove', passkey: found.passkey });
      say(`removed the passkey ${found.name}`);
    });
    return;
  }
  await withAgent(options, async (agent) => {
    const otp = await presentOtp(options);
    await agent.request({ type: 'otp_remove', otp });
    say('one-time passwords are off');
  });
}

/** The one passkey of that name, or whose id begins so. Throws ERR_CONFIG_NOT_FOUND for none and for several. */
export function findPasskey(passkeys: readonly Passkey[], word: string): Passkey {
  const exact = passkeys.filter(({ passkey, name }) => passkey === word || name === word);
  const found = exact.length > 0 ? exact : passkeys.filter((one) => one.passkey.startsWith(word));
  const [first] = found;
  if (first !== undefined && found.length === 1 && word !== '') return first;
  throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
    message: found.length > 1 ? 'several passkeys are called that' : 'there is no such passkey',
    hint: 'see: ztna mfa list --json',
    hop: 'client',
  });
}

/** Makes new recovery codes, which void those of before, and prints them: they are not shown again. */
export async function runMfaRecovery(options: OtpOptions): Promise<void> {
  await withAgent(options, async (agent) => {
    const otp = await presentOtp(options);
    const { codes } = await agent.request({ type: 'recovery_begin', otp });
    if (options.json) {
      printJsonLine({ codes });
      return;
    }
    say(
      'each of these signs you in once in place of a one-time password; they are not shown again:',
    );
    for (const code of codes) print(code);
  });
}

async function presentOtp({ otp }: OtpOptions): Promise<string> {
  if (otp !== undefined) return otp;
  if (!canAsk()) throw cannotAsk('give the present code with --otp CODE');
  return askLine('one-time password');
}

async function readLine(): Promise<string> {
  const lines = createInterface({ input: process.stdin });
  try {
    for await (const line of lines) return line.trim();
    return '';
  } finally {
    lines.close();
  }
}
