import { spawn, type ChildProcess } from 'node:child_process';

/** How long a tool may take unless its caller says otherwise. */
const timeoutMs = 3_000;

/** As much as a tool may print, both streams together. */
export const maxToolBytes = 65_536;

/** What a tool printed before it ended by itself. */
export interface ToolOutput {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Why there is nothing to read: it is not there, took too long, printed too much, or died of a signal. */
export interface ToolFailure {
  readonly failure: 'missing' | 'timeout' | 'flood' | 'killed';
}

export type ToolAnswer = ToolOutput | ToolFailure;

export interface RunToolOptions {
  readonly timeoutMs?: number;
  /** Kills the tool when it aborts; the answer is `timeout`. */
  readonly signal?: AbortSignal;
}

const isWindows = process.platform === 'win32';

/** Nothing of ours, in the one language that is understood. Windows adds what no program starts without. */
const environment = { LANG: 'C', LC_ALL: 'C' };

/**
 * Runs a program by its absolute path, without a shell, input, environment or terminal, and answers what it printed. It gets
 * 3 s and 64 KiB; beyond either, it and all that it started are killed. Never rejects.
 */
export function runTool(
  file: string,
  args: readonly string[],
  options: RunToolOptions = {},
): Promise<ToolAnswer> {
  const { signal } = options;
  if (signal?.aborted === true) return Promise.resolve({ failure: 'timeout' });
  return new Promise((resolve) => {
    const child = start(file, args);
    if (!child) {
      resolve({ failure: 'missing' });
      return;
    }
    const chunks: { readonly stdout: Buffer[]; readonly stderr: Buffer[] } = {
      stdout: [],
      stderr: [],
    };
    let bytes = 0;
    const finish = (answer: ToolAnswer): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', late);
      child.removeAllListeners();
      child.on('error', () => undefined);
      if ('failure' in answer) end(child);
      resolve(answer);
    };
    const late = (): void => finish({ failure: 'timeout' });
    const timer = setTimeout(late, options.timeoutMs ?? timeoutMs);
    signal?.addEventListener('abort', late, { once: true });
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.on('error', () => undefined);
      child[name]?.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > maxToolBytes) finish({ failure: 'flood' });
        else chunks[name].push(chunk);
      });
    }
    child.once('error', () => finish({ failure: 'missing' }));
    child.once('close', (exitCode) => {
      if (exitCode === null) {
        finish({ failure: 'killed' });
        return;
      }
      const [stdout, stderr] = [chunks.stdout, chunks.stderr].map((all) =>
        Buffer.concat(all).toString('utf8'),
      );
      finish({ exitCode, stdout: stdout ?? '', stderr: stderr ?? '' });
    });
  });
}

function start(file: string, args: readonly string[]): ChildProcess | undefined {
  try {
    return spawn(file, args, {
      cwd: isWindows ? 'C:\\Windows\\System32' : '/',
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: !isWindows, // a group of its own, which is killed as a whole
      windowsHide: true,
    });
  } catch {
    return undefined;
  }
}

/** Kills it with all that it started, and waits for nothing of it: what hangs in the kernel does not even die. */
function end(child: ChildProcess): void {
  if (child.pid !== undefined) {
    try {
      if (isWindows) child.kill('SIGKILL');
      else process.kill(-child.pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
  child.stdout?.destroy();
  child.stderr?.destroy();
  child.unref();
}

/** Why a tool told nothing, in words for a person. */
export function describeFailure(tool: string, { failure }: ToolFailure): string {
  switch (failure) {
    case 'missing':
      return `${tool} is not there`;
    case 'timeout':
      return `${tool} did not answer in time`;
    case 'flood':
      return `${tool} printed too much`;
    case 'killed':
      return `${tool} was killed`;
  }
}

/** Lines without the spaces around them, and without empty ones. */
export function linesOf(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}
