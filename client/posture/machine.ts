import { homedir } from 'node:os';
import { join } from 'node:path';
import { thisPlatform, type Platform } from './platform.ts';
import { parsePs, parseTasklist, readProcesses, type RunningProcess } from './process-list.ts';
import { readPlainFile, type FileAnswer } from './read-file.ts';
import { Slots } from './slots.ts';
import { runTool, type RunToolOptions, type ToolAnswer } from './run-tool.ts';

/** As many tools as run at once. */
const maxAtOnce = 4;

/** What the checks know of a machine: its tools, its files and its processes. */
export interface Machine {
  readonly platform: Platform;
  readonly homeDir: string;
  /** Of the user whose checks these are; undefined where users have no number. */
  readonly uid: number | undefined;
  /** Runs the first of these absolute paths that is there. Never rejects. */
  run(
    files: readonly string[],
    args: readonly string[],
    options?: RunToolOptions,
  ): Promise<ToolAnswer>;
  /** Reads a plain file of at most 64 KiB. Never rejects. */
  read(path: string): Promise<FileAnswer>;
  /** Where a path of this machine is in the file system of this process. */
  locate(path: string): string;
  /** All processes; undefined when they cannot all be seen. */
  processes(signal: AbortSignal): Promise<readonly RunningProcess[] | undefined>;
}

export interface LocalMachineOptions {
  /** A directory that stands for / in every path, the tools' too. */
  readonly root?: string;
  readonly platform?: Platform;
  readonly homeDir?: string;
  readonly uid?: number | undefined;
  /** How long a tool may take for which its check names no time; 3 s unless a test says otherwise. */
  readonly toolTimeoutMs?: number;
}

/** The machine that this process runs on, or a directory that looks like one. Runs no more than 4 tools at once. */
export class LocalMachine implements Machine {
  readonly platform: Platform;
  readonly homeDir: string;
  readonly uid: number | undefined;
  readonly #root: string;
  readonly #defaults: RunToolOptions;
  readonly #slots = new Slots(maxAtOnce);

  constructor(options: LocalMachineOptions = {}) {
    this.#root = options.root ?? '';
    const { toolTimeoutMs } = options;
    this.#defaults = toolTimeoutMs === undefined ? {} : { timeoutMs: toolTimeoutMs };
    this.platform = options.platform ?? thisPlatform();
    this.homeDir = options.homeDir ?? homedir();
    this.uid = 'uid' in options ? options.uid : process.getuid?.();
  }

  async run(
    files: readonly string[],
    args: readonly string[],
    options: RunToolOptions = {},
  ): Promise<ToolAnswer> {
    return this.#slots.run(async () => {
      for (const file of files) {
        const answer = await runTool(this.locate(file), args, { ...this.#defaults, ...options });
        if (!('failure' in answer) || answer.failure !== 'missing') return answer;
      }
      return { failure: 'missing' };
    });
  }

  async read(path: string): Promise<FileAnswer> {
    return readPlainFile(this.locate(path));
  }

  locate(path: string): string {
    return this.#root === '' ? path : join(this.#root, path);
  }

  async processes(signal: AbortSignal): Promise<readonly RunningProcess[] | undefined> {
    switch (this.platform) {
      case 'linux':
        return readProcesses(this.locate('/proc'));
      case 'darwin':
        return parsePs(await this.run(['/bin/ps'], ['-axww', '-o', 'uid=,comm='], { signal }));
      case 'win32': {
        const tasklist = 'C:\\Windows\\System32\\tasklist.exe';
        return parseTasklist(await this.run([tasklist], ['/FO', 'CSV', '/NH'], { signal }));
      }
      case 'other':
        return undefined;
    }
  }
}
