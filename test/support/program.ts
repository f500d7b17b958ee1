import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('../..', import.meta.url));

/** The three commands of one installation, and the variables that running them there takes. */
export interface Commands {
  readonly ztna: string;
  readonly connector: string;
  readonly relay: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** The launchers of this checkout, as an operator or employee would run them. */
export const launchers: Commands = {
  ztna: `${top}client/ztna`,
  connector: `${top}connector/ztna-connector`,
  relay: `${top}relay/ztna-relay`,
};

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProgramOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly input?: string | Buffer;
  readonly cwd?: string;
  readonly timeoutMs?: number;
  /** The network namespace to run in; by default this process's own. */
  readonly place?: string | undefined;
}

/** The command and arguments that run a program in a place; the process is the program itself either way. */
export function inPlace(
  place: string | undefined,
  file: string,
  args: readonly string[],
): [string, readonly string[]] {
  return place === undefined ? [file, args] : ['ip', ['netns', 'exec', place, file, ...args]];
}

/**
 * Variables that a child gets: nothing of ours leaks in by accident. What a run's own cache holds, `main.ts` included,
 * no program has to strip of its types again.
 */
function environment(extra: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv {
  const { PATH, HOME, LANG, NODE_COMPILE_CACHE } = process.env;
  const shared = NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE };
  return { PATH, HOME, LANG, ...shared, ZTNA_NO_INPUT: '1', NO_COLOR: '1', ...extra };
}

/** Runs a program to its end. Does not throw for a non-zero exit. */
export async function runProgram(
  file: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<Finished> {
  const { cwd } = options;
  const child = spawn(...inPlace(options.place, file, args), {
    env: environment(options.env),
    stdio: 'pipe',
    ...(cwd === undefined ? {} : { cwd }),
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 60_000);
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.stdin.on('error', () => undefined); // the program may end before it has read its input
  child.stdin.end(options.input ?? '');
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(timer);
  return {
    code,
    signal,
    stdout: Buffer.concat(stdout).toString(),
    stderr: Buffer.concat(stderr).toString(),
  };
}

/** Runs a program that must succeed and answers its standard output. */
export async function mustRun(
  file: string,
  args: readonly string[],
  options: ProgramOptions = {},
): Promise<string> {
  const finished = await runProgram(file, args, options);
  if (finished.code !== 0) {
    const { code, stdout, stderr } = finished;
    throw new Error(`${file} ${args.join(' ')} ended with ${code}:\n${stdout}\n${stderr}`);
  }
  return finished.stdout;
}

/** A program that stays: its lines are kept and can be waited for. */
export class RunningProgram {
  readonly child: ChildProcessWithoutNullStreams;
  readonly lines: string[] = [];
  readonly errorLines: string[] = [];
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly #waiting = new Set<() => void>();
  #ending: string | undefined;

  constructor(file: string, args: readonly string[], options: ProgramOptions = {}) {
    this.child = spawn(...inPlace(options.place, file, args), {
      env: environment(options.env),
      stdio: 'pipe',
    });
    this.child.stdin.on('error', () => undefined);
    this.#collect(this.child.stdout, this.lines);
    this.#collect(this.child.stderr, this.errorLines);
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => {
        this.#ending = `the program ended with ${code ?? signal ?? 'nothing'}`;
        this.#notify();
        resolve({ code, signal });
      });
    });
  }

  #collect(stream: NodeJS.ReadableStream, lines: string[]): void {
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line);
      this.#notify();
    });
  }

  #notify(): void {
    for (const wake of this.#waiting) wake();
  }

  /** Resolves with the first value that `find` returns; rejects when the program ends or `timeoutMs` passes first. */
  async until<T>(find: () => T | undefined, what: string, timeoutMs = 30_000): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(check);
        settle();
      };
      const fail = (why: string): void =>
        finish(() => reject(new Error(`${why} before ${what}; it said:\n${this.transcript()}`)));
      const check = (): void => {
        const found = find();
        if (found !== undefined) finish(() => resolve(found));
        else if (this.#ending !== undefined) fail(this.#ending);
      };
      const timer = setTimeout(() => fail(`${timeoutMs} ms passed`), timeoutMs);
      this.#waiting.add(check);
      check();
    });
  }

  /** The first line on standard output that matches, from line `from` on. */
  async line(pattern: RegExp, from = 0, timeoutMs = 30_000): Promise<string> {
    return this.until(
      () => this.lines.slice(from).find((line) => pattern.test(line)),
      String(pattern),
      timeoutMs,
    );
  }

  /** The first line on standard error that matches. */
  async errorLine(pattern: RegExp, timeoutMs = 30_000): Promise<string> {
    return this.until(
      () => this.errorLines.find((line) => pattern.test(line)),
      String(pattern),
      timeoutMs,
    );
  }

  /** The first event (a JSON line) of that name, from line `from` on. */
  async event(name: string, from = 0, timeoutMs = 30_000): Promise<Record<string, unknown>> {
    const line = await this.line(new RegExp(`"event":"${name}"`), from, timeoutMs);
    return JSON.parse(line) as Record<string, unknown>;
  }

  transcript(): string {
    return [...this.lines, ...this.errorLines].slice(-60).join('\n');
  }

  /** Ends the program; SIGKILL follows when it does not go by itself. Safe to call twice. */
  async stop(
    signal: NodeJS.Signals = 'SIGTERM',
  ): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    this.child.kill(signal);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 15_000);
    const result = await this.ended;
    clearTimeout(timer);
    return result;
  }
}
