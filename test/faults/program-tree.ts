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

/** Bytes that have come into the network namespace of a program so far; undefined for one that is gone. */
export function receivedBytes(program: RunningProgram): number | undefined {
  try {
    const text = readFileSync(`/proc/${program.child.pid}/net/dev`, 'utf8');
    return [...text.matchAll(/^\s*(\S+):\s*(\d+)/gm)]
      .filter(([, device]) => device !== 'lo')
      .reduce((sum, [, , bytes]) => sum + Number(bytes), 0);
  } catch {
    return undefined;
  }
}
