import { spawnSync } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  constants,
  mkdtempSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where test files ask for the directory in which they share their RSA keys; only its owner may enter it. */
export const keptKeysVariable = 'ZTNA_TEST_KEYS';

const memory = '/dev/shm';
const neededBytes = 2 ** 31;

/**
 * Makes the directory that holds everything of a run. In memory where the machine has enough of it: stores sync every
 * commit, and thousands of them would wait for the disk.
 */
export function makeRunDirectory(): string {
  const dir = isRoomy(memory) ? makeDirectory(memory) : undefined;
  if (dir !== undefined) {
    if (canExecuteIn(dir)) return dir;
    rmSync(dir, { recursive: true });
  }
  return makeDirectory(tmpdir());
}

function makeDirectory(parent: string): string {
  const dir = mkdtempSync(join(parent, 'ztna-'));
  chmodSync(dir, 0o711); // database servers run as somebody else
  return dir;
}

function isRoomy(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK);
    const { bavail, bsize } = statfsSync(dir);
    return bavail * bsize >= neededBytes;
  } catch {
    return false;
  }
}

/** Containers often mount it without that right. */
function canExecuteIn(dir: string): boolean {
  const script = join(dir, 'try');
  writeFileSync(script, '#!/bin/sh\n', { mode: 0o700 });
  const { status } = spawnSync(script);
  rmSync(script);
  return status === 0;
}
