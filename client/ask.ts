import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';
import { ZtnaError } from '../protocol/index.ts';
import { askHidden, escapeTerminal } from '../protocol/host/index.ts';

/** More than any password or code; what is longer is not one. */
const maxInputBytes = 8_192;

/** True when a person can be asked: standard input is a terminal and ZTNA_NO_INPUT does not forbid it. */
export function canAsk(): boolean {
  return process.stdin.isTTY && process.env['ZTNA_NO_INPUT'] !== '1';
}

/**
 * True when a person can be asked in the middle of something else: standard error is the terminal too, and this process is
 * in its foreground. One that runs behind a shell would be stopped, with all its tunnels, as soon as it reads.
 */
export function canInterrupt(): boolean {
  return canAsk() && process.stderr.isTTY && isInForeground();
}

/**
 * True when a person is there to be shown something, be it that standard input belongs to an app: standard error is a terminal, and
 * ZTNA_NO_INPUT does not say that nobody sits there.
 */
export function canShow(): boolean {
  return process.stderr.isTTY && process.env['ZTNA_NO_INPUT'] !== '1';
}

function isInForeground(): boolean {
  if (process.platform === 'win32') return true;
  try {
    const [group, foreground] =
      process.platform === 'linux'
        ? groupsOf(readFileSync('/proc/self/stat', 'utf8'))
        : execFileSync('/bin/ps', ['-o', 'pgid=,tpgid=', '-p', String(process.pid)], psOptions)
            .trim()
            .split(/\s+/);
    return group !== undefined && group === foreground;
  } catch {
    return false;
  }
}

const psOptions = { encoding: 'utf8', timeout: 1_000 } as const;

/** This process's group, and that in the foreground of its terminal: the fields 5 and 8, behind a name in brackets. */
function groupsOf(stat: string): (string | undefined)[] {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return [fields[2], fields[5]];
}

/**
 * Asks for a line on the terminal; an empty answer means `fallback`. Throws ERR_CONFIG_USAGE when it cannot ask, when the
 * person gives up with Ctrl-D, and when the signal takes the question back.
 */
export async function askLine(
  question: string,
  fallback?: string,
  signal?: AbortSignal,
): Promise<string> {
  if (!canAsk()) throw cannotAsk();
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  // The terminal is in raw mode meanwhile, so Ctrl-C comes here in place of a signal.
  terminal.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  const { promise: gaveUp, reject } = Promise.withResolvers<never>();
  // A question that is open at the end of the input would stay open for ever.
  terminal.once('close', () => {
    reject(cannotAsk('run the command again', 'no answer was given'));
  });
  gaveUp.catch(() => undefined);
  const takeBack = (): void => {
    terminal.close();
  };
  signal?.addEventListener('abort', takeBack, { once: true });
  try {
    if (signal?.aborted === true) takeBack();
    const shown = fallback === undefined ? '' : ` [${escapeTerminal(fallback)}]`;
    const asked = signal?.aborted === true ? gaveUp : terminal.question(`${question}${shown}: `);
    const answer = (await Promise.race([asked, gaveUp])).trim();
    return answer === '' && fallback !== undefined ? fallback : answer;
  } finally {
    signal?.removeEventListener('abort', takeBack);
    terminal.close();
  }
}

/** Asks for a password that is being chosen, twice. Throws ERR_CONFIG_USAGE when the two differ. */
export async function askNewPassword(): Promise<string> {
  const password = await askHidden('password (a new one, or yours if you have one): ');
  const repeated = await askHidden('the same again: ');
  if (password === repeated) return password;
  throw new ZtnaError('ERR_CONFIG_USAGE', {
    message: 'the two passwords differ',
    hint: 'run the command again',
    hop: 'client',
  });
}

/** Standard input to its end, as lines. Throws ERR_CONFIG_USAGE when it is larger than a secret can be. */
export async function readStdinLines(): Promise<string[]> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin) {
    text += String(chunk);
    if (text.length > maxInputBytes) {
      throw new ZtnaError('ERR_CONFIG_USAGE', {
        message: 'standard input is too long to be a code or a password',
        hop: 'client',
      });
    }
  }
  return text.replace(/\r?\n$/, '').split(/\r?\n/);
}

/** The error of a command that needs an answer which nobody is there to give. */
export function cannotAsk(
  hint = 'run it on a terminal',
  message = 'this needs an answer and there is no terminal to ask on',
): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', { message, hint, hop: 'client' });
}
