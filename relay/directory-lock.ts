import { closeSync, fstatSync, fsyncSync, linkSync, openSync, readFileSync } from 'node:fs';
import { renameSync, statSync, unlinkSync, writeSync } from 'node:fs';
import { systemCode } from '../protocol/host/index.ts';
import { ZtnaError } from '../protocol/index.ts';

/** Holds a directory for one process. */
export interface DirectoryLock {
  /** Lets go. Safe to call twice. */
  release(): void;
}

/** A process, told apart from a later one with the same id by its start time where the system states it. */
interface Holder {
  readonly pid: number;
  readonly startedAt: string | null;
}

/** Lock files held here: another process with our id is us, or it is dead. */
const held = new Set<string>();

/**
 * Takes the lock file at `path`, or throws ERR_CONFIG_LOCKED naming the process that has it. What a dead
 * process left behind is taken over.
 */
export function lockDirectory(path: string): DirectoryLock {
  for (let attempt = 0; attempt < 3; attempt++) {
    if (createLockFile(path)) {
      held.add(path);
      return { release: () => release(path) };
    }
    const found = readLockFile(path);
    if (found?.holder && isAlive(path, found.holder)) throw locked(path, found.holder.pid);
    if (found) removeStale(path, found.inode);
  }
  throw locked(path, undefined);
}

function locked(path: string, pid: number | undefined): ZtnaError {
  const who = pid === undefined ? 'another process' : `process ${String(pid)}`;
  return new ZtnaError('ERR_CONFIG_LOCKED', {
    message: `${who} uses this directory already (${path})`,
    hint: `stop ${who}, or use another --dir`,
    reason: 'directory_locked',
  });
}

function createLockFile(path: string): boolean {
  let file: number;
  try {
    file = openSync(path, 'wx', 0o600);
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
  try {
    const holder: Holder = { pid: process.pid, startedAt: startOf(process.pid) };
    writeSync(file, JSON.stringify(holder) + '\n');
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  return true;
}

function readLockFile(path: string): { holder: Holder | undefined; inode: number } | undefined {
  let file: number;
  try {
    file = openSync(path, 'r');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return undefined;
    throw error;
  }
  try {
    return { holder: parseHolder(readFileSync(file, 'utf8')), inode: fstatSync(file).ino };
  } finally {
    closeSync(file);
  }
}

function parseHolder(text: string): Holder | undefined {
  try {
    const { pid, startedAt } = JSON.parse(text) as Record<string, unknown>;
    if (typeof pid !== 'number' || !Number.isSafeInteger(pid) || pid <= 0) return undefined;
    return { pid, startedAt: typeof startedAt === 'string' ? startedAt : null };
  } catch {
    return undefined; // cut short by a crash while it was written
  }
}

function isAlive(path: string, holder: Holder): boolean {
  if (holder.pid === process.pid) return held.has(path);
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    if (systemCode(error) === 'ESRCH') return false; // EPERM: it lives, under another user
  }
  const startedAt = startOf(holder.pid);
  return holder.startedAt === null || startedAt === null || startedAt === holder.startedAt;
}

/** Ticks since boot, as Linux states it; null elsewhere. */
function startOf(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${String(pid)}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

/**
 * Moves the stale file away before deleting it: should another process have taken the lock over meanwhile,
 * what was moved is its live file, which goes back.
 */
function removeStale(path: string, inode: number): void {
  const aside = `${path}.stale-${String(process.pid)}`;
  try {
    renameSync(path, aside);
    if (statSync(aside).ino !== inode) linkSync(aside, path);
    unlinkSync(aside);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
}

function release(path: string): void {
  if (!held.delete(path)) return;
  try {
    unlinkSync(path);
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
}
