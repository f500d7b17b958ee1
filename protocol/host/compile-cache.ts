/**
 * A door of its own: `main.ts` of each program loads this and nothing else before the cache is on, because what is
 * loaded together with it would be compiled anew at every start.
 */
import { lstatSync, mkdirSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

const ownerOnly = 0o077;
const othersMayWrite = 0o022;

/**
 * Has Node keep what it compiles in this user's cache, for the next start. Compiled code is code: a directory into
 * which anybody else could write is not used, and never one that is shared. Without a cache all works as well, later.
 */
export function keepCompiledCode(): void {
  try {
    const directory = compileCacheDir();
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (isPrivate(directory)) enableCompileCache(directory);
  } catch {
    // A home that is missing or read-only.
  }
}

/**
 * What has a program of ours that this one starts use the same cache, its first file included; empty where there is none,
 * or where whoever started this one has named another.
 */
export function compileCacheVariable(
  env: NodeJS.ProcessEnv = process.env,
): Readonly<Record<string, string>> {
  if (env['NODE_COMPILE_CACHE'] !== undefined) return {};
  try {
    const directory = compileCacheDir(env);
    return isPrivate(directory) ? { NODE_COMPILE_CACHE: directory } : {};
  } catch {
    return {};
  }
}

/** `ztna` in the platform's place for what may be lost at any time. */
export function compileCacheDir(
  env: NodeJS.ProcessEnv = process.env,
  platform: NodeJS.Platform = process.platform,
  home: string = homedir(),
): string {
  const xdg = env['XDG_CACHE_HOME'];
  if (xdg?.startsWith('/')) return join(xdg, 'ztna'); // the specification says to ignore a relative one
  if (platform === 'darwin') return join(home, 'Library', 'Caches', 'ztna');
  if (platform === 'win32') {
    return join(env['LOCALAPPDATA'] ?? join(home, 'AppData', 'Local'), 'ztna', 'cache');
  }
  return join(home, '.cache', 'ztna');
}

/** True for a real directory of ours that nobody else may enter, in one in which nobody else may replace it. */
export function isPrivate(directory: string): boolean {
  const uid = process.getuid?.();
  if (uid === undefined) return true; // Windows: the place itself is the user's own
  const own = lstatSync(directory);
  const parent = lstatSync(dirname(directory));
  return (
    own.isDirectory() &&
    own.uid === uid &&
    (own.mode & ownerOnly) === 0 &&
    parent.isDirectory() &&
    (parent.uid === uid || parent.uid === 0) &&
    (parent.mode & othersMayWrite) === 0
  );
}
