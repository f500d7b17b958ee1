import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Argv } from 'yargs';
import { errorRow, toZtnaError, ZtnaError, type ErrorCode } from '../errors.ts';
import { systemCode } from './state-dir.ts';
import { shutdownCause, shutdownExitCode, watchShutdown } from './shutdown.ts';
import { escapeTerminal } from './terminal.ts';

/**
 * Parses `argv` with the commands that `build` adds and runs the one it names. Never throws: prints the error in
 * the form of the command line contract (one JSON object with `--json`) and sets `process.exitCode`.
 */
export async function runCommandLine(options: {
  readonly program: string;
  readonly build: (yargs: Argv) => Argv;
  readonly argv: readonly string[];
}): Promise<void> {
  const { program, build, argv } = options;
  watchShutdown();
  try {
    const { default: yargs } = await import('yargs');
    const base = yargs(hideDashes(argv))
      .scriptName(program)
      .parserConfiguration({
        'populate--': true,
        'parse-numbers': false,
        'parse-positional-numbers': false,
        'dot-notation': false,
        'greedy-arrays': false, // `--group a NAME`: the name is not another group
      })
      .exitProcess(false)
      .strict()
      .recommendCommands()
      .demandCommand(1, 'say what to do')
      .middleware((parsed) => {
        for (const [name, value] of Object.entries(parsed)) parsed[name] = showDashes(value);
      })
      .help()
      .alias('help', 'h')
      .version(softwareVersion())
      .wrap(Math.min(110, process.stderr.columns || 110))
      // A handler that only printed would let the command run all the same.
      .fail((message: string | null, error: Error | undefined) => {
        // Yargs has words for what it refuses itself, with or without an error; a command's own error has none.
        if (error instanceof ZtnaError || (error && message === null)) throw error;
        const reached = [program, ...enteredCommands(base)].join(' ');
        throw usageError(reached, message ?? 'the command was not understood', error);
      });
    await build(base).parseAsync();
    const cause = shutdownCause();
    if (cause !== undefined) process.exitCode = shutdownExitCode(cause);
  } catch (error) {
    const cause = shutdownCause();
    if (cause !== undefined) {
      process.exitCode = shutdownExitCode(cause);
      return;
    }
    printError(error, { isJson: wantsJson(argv), program });
    process.exitCode = errorRow(toZtnaError(error).code).exitCode;
  }
}

/** Stands for the argument `-`, which yargs would read as nothing at all. No real argument holds a NUL. */
const dash = '\0-';

function hideDashes(argv: readonly string[]): string[] {
  const end = argv.indexOf('--');
  return argv.map((word, i) => (word === '-' && (end === -1 || i < end) ? dash : word));
}

function showDash(text: string): string {
  return text.replaceAll(dash, '-');
}

function showDashes(value: unknown): unknown {
  if (typeof value === 'string') return showDash(value);
  return Array.isArray(value) ? value.map(showDashes) : value;
}

/** The commands that parsing has come through so far, which do exist. @types/yargs does not know of the call. */
function enteredCommands(yargs: Argv): readonly string[] {
  const { getInternalMethods } = yargs as unknown as {
    getInternalMethods?: () => { getContext(): { readonly commands: readonly string[] } };
  };
  return getInternalMethods?.call(yargs).getContext().commands ?? [];
}

function usageError(reached: string, message: string, cause?: Error): ZtnaError {
  return new ZtnaError('ERR_CONFIG_USAGE', {
    message: showDash(message.trim()).replaceAll(/\s*\n\s*/g, '; '),
    hint: `see: ${reached} --help`,
    hop: 'client',
    reason: 'usage',
    cause,
  });
}

/** What an option or argument that may be given once was given. Throws ERR_CONFIG_USAGE. */
export function oneValue(program: string, name: string, value: unknown): string {
  if (typeof value === 'string' && value !== '') return value;
  throw usageError(program, `give ${name} one value`);
}

/** The same for one that may be left out. */
export function optionalValue(program: string, name: string, value: unknown): string | undefined {
  return value === undefined ? undefined : oneValue(program, name, value);
}

function wantsJson(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return (end === -1 ? argv : argv.slice(0, end)).includes('--json');
}

/** The next step after an error that a peer told by its code alone. */
function usualHint(code: ErrorCode, program: string): string | undefined {
  if (code !== 'ERR_IDENTITY_REVOKED') return undefined;
  return program === employeeProgram
    ? 'ask your administrator for a new code, then run: ztna enroll CODE --replace'
    : 'make a new code on the relay, then enrol in a fresh directory';
}

/** To the other programs' people the hop `client` would be somebody else's machine: theirs goes unnamed. */
const employeeProgram = 'ztna';

/** Prints an error for people, or as one JSON object, on stderr. */
export function printError(
  error: unknown,
  options: { readonly isJson: boolean; readonly program: string },
): void {
  const { program } = options;
  const explained = explainInternal(toZtnaError(error));
  const { code, message, ref } = explained;
  const hint = explained.hint ?? usualHint(code, program);
  const isOwn = explained.hop === 'client' && program !== employeeProgram;
  const hop = isOwn ? undefined : explained.hop;
  if (options.isJson) {
    const shown = { code, message, hint: hint ?? null, ref: ref ?? null, hop: hop ?? null };
    process.stderr.write(`${escapeTerminal(JSON.stringify({ error: shown }))}\n`);
    return;
  }
  const lead = errorRow(code).family === 'denied' ? 'denied' : (hop ?? 'error');
  const lines = [`${lead}: ${message} [${code}]`];
  if (hint !== undefined) lines.push(`fix: ${hint}`);
  if (ref !== undefined) lines.push(`ref: ${ref}`);
  process.stderr.write(`${lines.map(escapeTerminal).join('\n')}\n`);
  if (process.env['ZTNA_DEBUG'] === '1') {
    const cause: unknown = error instanceof ZtnaError ? (error.cause ?? error) : error;
    const stack = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
    process.stderr.write(`${stack.split('\n').map(escapeTerminal).join('\n')}\n`);
  }
}

/** An error of the system under it (disk full, no permission) is worth naming; other causes may quote secrets. */
function explainInternal(error: ZtnaError): ZtnaError {
  const { cause, code } = error;
  const system = systemCode(cause);
  if (code !== 'ERR_INTERNAL' || error.message !== errorRow(code).publicText) return error;
  const name = system ?? (cause instanceof Error ? cause.name : undefined);
  if (name === undefined) return error;
  const failed = cause as NodeJS.ErrnoException;
  const what = [failed.syscall, failed.path].filter((part) => part !== undefined).join(' ');
  return new ZtnaError(code, {
    message: `${error.message}: ${what === '' ? name : `${what}: ${name}`}`,
    hint: error.hint ?? 'set ZTNA_DEBUG=1 to see where',
    cause,
  });
}

/** Answers a command of the contract that is not there yet. Throws ERR_CONFIG_NOT_AVAILABLE (exit 2). */
export function notAvailableYet(name: string): never {
  throw new ZtnaError('ERR_CONFIG_NOT_AVAILABLE', {
    message: `not available yet: ${name}`,
    hop: 'client',
  });
}

let knownVersion: string | undefined;

/** The version of this package, from its package.json. */
export function softwareVersion(): string {
  if (knownVersion !== undefined) return knownVersion;
  let directory = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    try {
      const text = readFileSync(join(directory, 'package.json'), 'utf8');
      const { name, version } = JSON.parse(text) as { name?: unknown; version?: unknown };
      if (name === 'ztna' && typeof version === 'string') return (knownVersion = version);
    } catch {
      // Not here; further up.
    }
    const parent = dirname(directory);
    if (parent === directory) return (knownVersion = '0.0.0');
    directory = parent;
  }
}
