import { closeSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Platform } from './platform.ts';
import { linesOf, type ToolAnswer } from './run-tool.ts';

/** A running process: its name, and whose it is where that is known. */
export interface RunningProcess {
  readonly name: string;
  readonly uid: number | undefined;
}

/** The Linux kernel keeps so many bytes of a name. */
const commBytes = 15;

/** As many processes as are looked at. */
const maxProcesses = 32_768;

/** So many are looked at before others have their turn. */
const processesPerTurn = 64;

/**
 * The processes that this machine runs, by /proc; undefined when they cannot all be seen, or are too many. These files are
 * made by the kernel as they are read and do not wait for anything.
 */
export async function readProcesses(proc = '/proc'): Promise<RunningProcess[] | undefined> {
  let ids: string[];
  try {
    ids = readdirSync(proc).filter((name) => /^[1-9]\d{0,9}$/.test(name));
  } catch {
    return undefined;
  }
  // The first process is hidden where others' processes are (hidepid).
  if (!ids.includes('1') || ids.length > maxProcesses) return undefined;
  const found: RunningProcess[] = [];
  for (const [at, id] of ids.entries()) {
    if (at % processesPerTurn === processesPerTurn - 1) await new Promise(setImmediate);
    const process = readProcess(join(proc, id));
    if (process) found.push(process);
  }
  return found;
}

const buffer = Buffer.alloc(64);

function readProcess(dir: string): RunningProcess | undefined {
  try {
    // Unlike this one, `cmdline` waits for a process that is stuck, and so would we.
    const name = readStart(join(dir, 'comm')).replace(/\n[^]*$/, '');
    return name === '' ? undefined : { name, uid: statSync(dir).uid };
  } catch {
    return undefined; // it ended meanwhile
  }
}

function readStart(path: string): string {
  const file = openSync(path, 'r');
  try {
    return buffer.toString('utf8', 0, readSync(file, buffer, 0, buffer.length, 0));
  } finally {
    closeSync(file);
  }
}

/** The last part of a path of any platform. */
export function baseName(path: string): string {
  return /[^/\\]*$/.exec(path)?.[0] ?? '';
}

/** What `ps -axww -o uid=,comm=` says; undefined when it is not understood. */
export function parsePs(answer: ToolAnswer): RunningProcess[] | undefined {
  if ('failure' in answer || answer.exitCode !== 0) return undefined;
  const processes: RunningProcess[] = [];
  for (const line of linesOf(answer.stdout)) {
    const [, uid, command = ''] = /^(\d{1,10})(?: +(\S.*))?$/.exec(line) ?? [];
    if (uid === undefined) return undefined;
    processes.push({ name: baseName(command), uid: Number(uid) });
  }
  return processes.some(({ name }) => name === 'launchd') ? processes : undefined;
}

/** What `tasklist.exe /FO CSV /NH` says; undefined when it is not understood. */
export function parseTasklist(answer: ToolAnswer): RunningProcess[] | undefined {
  if ('failure' in answer || answer.exitCode !== 0) return undefined;
  const processes: RunningProcess[] = [];
  for (const line of linesOf(answer.stdout)) {
    const name = /^"([^"]{1,260})","\d{1,10}",/.exec(line)?.[1];
    if (name === undefined) return undefined;
    processes.push({ name, uid: undefined });
  }
  return processes.length > 0 ? processes : undefined;
}

/**
 * True when a process of that name runs. Linux keeps the first 15 bytes of a name, and so many count there; Windows knows no
 * case and adds `.exe`.
 */
export function isRunning(
  processes: readonly RunningProcess[],
  name: string,
  platform: Platform,
): boolean {
  const plain = (text: string): string => {
    if (platform === 'win32') return text.toLowerCase().replace(/\.exe$/, '');
    return platform === 'linux' ? Buffer.from(text).subarray(0, commBytes).toString('utf8') : text;
  };
  const wanted = plain(name);
  return processes.some((process) => plain(process.name) === wanted);
}
