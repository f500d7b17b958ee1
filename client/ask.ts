import { createInterface } from 'node:readline/promises';
import { ZtnaError } from '../protocol/index.ts';
import { askHidden, escapeTerminal } from '../protocol/host/index.ts';

/** More than any password or code; what is longer is not one. */
const maxInputBytes = 8_192;

/** True when a person can be asked: standard input is a terminal and ZTNA_NO_INPUT does not forbid it. */
export function canAsk(): boolean {
  return process.stdin.isTTY && process.env['ZTNA_NO_INPUT'] !== '1';
}

/** Asks for a line on the terminal; an empty answer means `fallback`. Throws ERR_CONFIG_USAGE when it cannot ask. */
export async function askLine(question: string, fallback?: string): Promise<string> {
  if (!canAsk()) throw cannotAsk();
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  // The terminal is in raw mode meanwhile, so Ctrl-C comes here in place of a signal.
  terminal.on('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  try {
    const shown = fallback === undefined ? '' : ` [${escapeTerminal(fallback)}]`;
    const answer = (await terminal.question(`${question}${shown}: `)).trim();
    return answer === '' && fallback !== undefined ? fallback : answer;
  } finally {
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
export function cannotAsk(hint = 'run it on a terminal'): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', {
    message: 'this needs an answer and there is no terminal to ask on',
    hint,
    hop: 'client',
  });
}
