import { open, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { systemCode } from '../../protocol/host/index.ts';
import type { Profile } from '../agent/profile.ts';

/** How often whoever waits looks again. */
const lookEveryMs = 500;

/** No sign-in lasts so long. */
const longestMs = 900_000;

export interface Turn {
  /** True where another command had its turn meanwhile. */
  readonly hasWaited: boolean;
  end(): Promise<void>;
}

/**
 * Waits until no other command of this profile has the person at a page, so that many tunnels which need the same sign-in open one
 * browser. Rejects when the signal aborts. A command that was killed meanwhile leaves its turn to the next.
 */
export async function takeTurn(profile: Profile, signal: AbortSignal): Promise<Turn> {
  const path = join(profile.dir, 'sign-in.turn');
  for (let hasWaited = false; ; hasWaited = true) {
    if (await create(path)) {
      return { hasWaited, end: async () => rm(path, { force: true }) };
    }
    if (await isLeft(path)) await rm(path, { force: true });
    else await delay(lookEveryMs, undefined, { signal });
  }
}

async function create(path: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx', 0o600);
    await file.writeFile(String(process.pid));
    await file.close();
    return true;
  } catch (error) {
    if (systemCode(error) === 'EEXIST') return false;
    throw error;
  }
}

/** True where whoever holds the turn is there no more. */
async function isLeft(path: string): Promise<boolean> {
  const since = await stat(path).catch(() => undefined);
  if (!since) return false;
  if (Date.now() - since.mtimeMs > longestMs) return true;
  const pid = Number(await readFile(path, 'utf8').catch(() => ''));
  if (!Number.isSafeInteger(pid) || pid <= 0) return false; // it is being written
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return systemCode(error) === 'ESRCH';
  }
}
