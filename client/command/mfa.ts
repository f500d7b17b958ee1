import { createInterface } from 'node:readline';
import { renderUnicodeCompact } from 'uqr';
import { printJsonLine } from '../../protocol/host/index.ts';
import { askLine, canAsk, cannotAsk } from '../ask.ts';
import { print, say, withAgent, type GlobalOptions } from './context.ts';

export interface OtpOptions extends GlobalOptions {
  readonly otp: string | undefined;
}

export interface MfaAddOptions extends GlobalOptions {
  /** Print the secret's URI on standard output and read one code from standard input, for scripts. */
  readonly isOtpOnStdin: boolean;
}

/** Adds one-time passwords: shows the secret as a QR code and proves with one code that it was stored. */
export async function runMfaAdd(options: MfaAddOptions): Promise<void> {
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
  });
}

/** Says whether sign-in asks for one-time passwords. */
export async function runMfaList(options: GlobalOptions): Promise<void> {
  await withAgent(options, async (agent) => {
    const { enabled } = await agent.request({ type: 'otp_list' });
    if (options.json) printJsonLine({ kind: 'totp', enabled });
    else print(`totp  ${enabled ? 'on' : 'off'}`);
  });
}

/** Turns one-time passwords off; a present code proves that it is the user who does. */
export async function runMfaRemove(options: OtpOptions): Promise<void> {
  if (options.otp === undefined && !canAsk())
    throw cannotAsk('give the present code with --otp CODE');
  await withAgent(options, async (agent) => {
    const otp = options.otp ?? (await askLine('one-time password'));
    await agent.request({ type: 'otp_remove', otp });
    say('one-time passwords are off');
  });
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
