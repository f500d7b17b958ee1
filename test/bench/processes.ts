import { readdirSync, readFileSync } from 'node:fs';

/** Reads Linux's own accounting of processes from /proc; elsewhere every figure is NaN. */
const ticksPerSecond = 100; // USER_HZ is 100 on every Linux that Node supports

interface ProcessStat {
  readonly parent: number;
  readonly cpuSeconds: number;
}

function readStat(pid: number): ProcessStat | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    // Fields after the command name: state, ppid, …; utime and stime are the 12th and 13th, those of reaped children follow.
    const ticks = Number(fields[11]) + Number(fields[12]) + Number(fields[13]) + Number(fields[14]);
    return { parent: Number(fields[1]), cpuSeconds: ticks / ticksPerSecond };
  } catch {
    return undefined; // it has ended
  }
}

/** The processes themselves and all that they started and that still run. */
export function withDescendants(roots: readonly number[]): number[] {
  const found = new Set(roots);
  let all: [number, ProcessStat][] = [];
  try {
    all = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .flatMap((name): [number, ProcessStat][] => {
        const stat = readStat(Number(name));
        return stat ? [[Number(name), stat]] : [];
      });
  } catch {
    return [...found];
  }
  for (let grew = true; grew;) {
    grew = false;
    for (const [pid, { parent }] of all) {
      if (!found.has(pid) && found.has(parent)) {
        found.add(pid);
        grew = true;
      }
    }
  }
  return [...found];
}

/** CPU seconds, user and system, that the processes and their descendants have used so far. */
export function cpuSeconds(roots: readonly number[]): number {
  return withDescendants(roots).reduce((sum, pid) => sum + (readStat(pid)?.cpuSeconds ?? 0), 0);
}

/** Resident bytes of one process. */
export function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(match?.[1] ?? Number.NaN) * 1024;
}

/** The command line of a process, for finding one child among several. */
export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}
