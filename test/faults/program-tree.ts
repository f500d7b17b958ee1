import { readFileSync } from 'node:fs';
import { commandLine, withDescendants } from '../bench/processes.ts';
import type { RunningProgram } from '../support/program.ts';

/** Sends a signal to a program and to everything it started, the program first so that it restarts nothing. */
export function signalTree(program: RunningProgram, signal: NodeJS.Signals): void {
  for (const pid of withDescendants([program.child.pid ?? 0])) signalProcess(pid, signal);
}

/** The process that a program started and whose command line contains `part`; undefined while there is none. */
export function findChild(program: RunningProgram, part: string): number | undefined {
  return withDescendants([program.child.pid ?? 0]).find((pid) => commandLine(pid).includes(part));
}

/** Answers whether there was such a process. */
export function signalProcess(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    return false;
  }
}

/** Bytes that a process has read so far, from sockets too; 0 for one that is gone. */
export function readBytes(pid: number | undefined): number {
  if (pid === undefined) return 0;
  try {
    return Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1] ?? 0);
  } catch {
    return 0;
  }
}
