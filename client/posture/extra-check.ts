import type { ExtraCheck } from '../../protocol/index.ts';
import type { Collection } from './collector.ts';
import type { FileChecks } from './file-check.ts';
import { off, on, unknown, type Finding } from './finding.ts';
import type { Platform } from './platform.ts';
import { isRunning } from './process-list.ts';
import { findRegistry } from './windows/registry.ts';

/** Finds out what a deployment asks for beside the checks of every client. */
export async function findExtra(
  check: ExtraCheck,
  collection: Collection,
  files: FileChecks,
): Promise<Finding> {
  const { machine, signal } = collection;
  switch (check.kind) {
    case 'process':
    case 'no_process': {
      const processes = await collection.processes();
      if (!processes) return unknown('the running processes cannot be seen');
      const runs = isRunning(processes, check.name, machine.platform);
      const finding = runs === (check.kind === 'process') ? on : off;
      return finding(`${check.name} ${runs ? 'runs' : 'does not run'}`);
    }
    case 'file':
    case 'no_file': {
      if (!isLocalPath(check.path, machine.platform)) return unknown('its path is not a local one');
      const path = machine.locate(check.path);
      return check.kind === 'file'
        ? files.find(path, check.sha256, signal)
        : files.findNone(path, signal);
    }
    case 'registry':
      return findRegistry(check, machine, signal);
  }
}

/** An absolute path of this platform; what names another machine would sign in there. */
function isLocalPath(path: string, platform: Platform): boolean {
  return platform === 'win32' ? /^[A-Za-z]:[\\/]/.test(path) : /^\/(?!\/)/.test(path);
}
