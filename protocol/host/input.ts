import { open } from 'node:fs/promises';
import { StringDecoder } from 'node:string_decoder';
import { ZtnaError } from '../errors.ts';
import { requestShutdown } from './shutdown.ts';
import { systemCode } from './state-dir.ts';

/** No code, password or passphrase is larger. */
const maxSecretBytes = 8_192;

const unitMs: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `250ms`, `20s`, `5m`, `24h` or `400d` in milliseconds. Throws ERR_CONFIG_INVALID. */
export function parseDurationMs(text: string): number {
  const [, count, unit] = /^(\d{1,7})(ms|s|m|h|d)$/.exec(text) ?? [];
  const scaleMs = unitMs[unit ?? ''];
  if (count === undefined || scaleMs === undefined) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: `“${text.slice(0, 40)}” is not a duration`,
      hint: 'write it as 250ms, 20s, 5m, 24h or 400d',
      hop: 'client',
      reason: 'duration_invalid',
    });
  }
  return Number(count) * scaleMs;
}

/**
 * A secret named on the command line: `-` reads standard input, `file:PATH` a file, anything else is the secret
 * itself (a one-time code). Without the line end. Throws ERR_CONFIG_USAGE or ERR_CONFIG_NOT_FOUND.
 */
export async function readSecretArgument(source: string): Promise<string> {
  const text =
    source === '-'
      ? await readStdin()
      : source.startsWith('file:')
        ? await readCapped(source.slice('file:'.length))
        : source;
  const secret = text.replace(/\r?\n$/, '');
  if (secret !== '') return secret;
  throw usage('no code or password was given', 'give it on standard input, or as file:PATH');
}

async function readStdin(): Promise<string> {
  if (process.stdin.isTTY) return askHidden('paste it here: ');
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxSecretBytes) throw tooLong();
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function readCapped(path: string): Promise<string> {
  try {
    // Secrets mounted by an orchestrator are links to files of other owners, so neither is held against it.
    const file = await open(path, 'r');
    try {
      const buffer = Buffer.alloc(maxSecretBytes + 1);
      const { bytesRead } = await file.read(buffer, 0, buffer.length);
      if (bytesRead > maxSecretBytes) throw tooLong();
      return buffer.toString('utf8', 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof ZtnaError) throw cause;
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
      message: `${path} cannot be read (${systemCode(cause) ?? 'unknown'})`,
      hop: 'client',
      cause,
    });
  }
}

/**
 * Asks on the terminal without showing what is typed. The prompt goes to stderr. Throws ERR_CONFIG_USAGE when there is
 * no terminal or ZTNA_NO_INPUT=1, when the person gives up with Ctrl-D, and when the signal takes the question back.
 */
export async function askHidden(prompt: string, signal?: AbortSignal): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY || !stderr.isTTY || process.env['ZTNA_NO_INPUT'] === '1') {
    throw usage(
      'this needs an answer and there is no terminal to ask on',
      'give it on standard input, or run this on a terminal',
    );
  }
  if (signal?.aborted === true) throw takenBack();
  stdin.setRawMode(true); // before the prompt: who answers quickly is not shown either
  stderr.write(prompt);
  try {
    return await readHiddenLine(stdin, signal);
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    stderr.write('\n');
  }
}

async function readHiddenLine(stdin: NodeJS.ReadStream, signal?: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    const decoder = new StringDecoder('utf8');
    const typed: string[] = [];
    const settle = () => {
      stdin.off('data', onData);
      stdin.off('end', onEnd);
      signal?.removeEventListener('abort', onAbort);
    };
    const fail = (error: ZtnaError) => {
      settle();
      reject(error);
    };
    const onAbort = () => {
      fail(takenBack());
    };
    const onEnd = () => {
      fail(usage('no answer was given', 'run the command again'));
    };
    const onData = (chunk: Buffer | string) => {
      const text = typeof chunk === 'string' ? chunk : decoder.write(chunk);
      for (const character of text) {
        if (character === '\r' || character === '\n') {
          settle();
          resolve(typed.join(''));
          return;
        }
        if (character === '\u0003') {
          requestShutdown('SIGINT'); // Raw mode turned Ctrl-C into a character.
          fail(usage('interrupted', 'run the command again'));
          return;
        }
        if (character === '\u0004') {
          onEnd();
          return;
        }
        if (character === '\u007f' || character === '\b') typed.pop();
        else if (character === '\u0015') typed.length = 0;
        else if (character >= ' ') typed.push(character);
        if (typed.length > maxSecretBytes) fail(tooLong());
      }
    };
    stdin.on('data', onData);
    stdin.on('end', onEnd);
    signal?.addEventListener('abort', onAbort, { once: true });
    stdin.resume();
  });
}

function usage(message: string, hint: string): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', { message, hint, hop: 'client' });
}

function takenBack(): ZtnaError {
  return usage('no answer is needed any more', 'go on');
}

function tooLong(): ZtnaError {
  return usage('that is too long to be a code or a password', 'check what was given');
}
