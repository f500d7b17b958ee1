import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { lstat, mkdir, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { ZtnaError } from '../errors.ts';

/** No secret file of ours is larger. */
const maxSecretFileBytes = 1_048_576;

/** Windows has neither owner nor mode bits of this kind; there the profile directory's own list guards the files. */
const hasModes = process.platform !== 'win32';

/** The `code` of a system error, or undefined: what decisions about failed calls are made on. */
export function systemCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return typeof code === 'string' ? code : undefined;
}

function tooWide(message: string, hint: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_CONFIG_PERMISSIONS', { message, hint, hop: 'client', cause });
}

function refuseWideModes(
  path: string,
  stats: { readonly mode: number; readonly uid: number },
  mode: '700' | '600',
): void {
  if (!hasModes) return;
  if (stats.uid !== process.getuid?.()) {
    throw tooWide(`${path} belongs to another user`, `run as its owner, or chown it`);
  }
  if ((stats.mode & 0o077) !== 0) {
    throw tooWide(`${path} is open to other users`, `chmod ${mode} ${path}`);
  }
}

/**
 * Makes sure that `path` is a directory of our own that nobody else may enter, creating it (0700) if need be.
 * Answers its absolute path. Throws ERR_CONFIG_PERMISSIONS for a link, another owner or a wider mode.
 */
export async function openStateDir(path: string): Promise<string> {
  const absolute = resolve(path);
  try {
    await mkdir(absolute, { recursive: true, mode: 0o700 });
  } catch (cause) {
    throw tooWide(
      `${absolute} cannot be made (${systemCode(cause) ?? 'unknown'})`,
      'choose a directory that you may write to',
      cause,
    );
  }
  const stats = await lstat(absolute);
  if (!stats.isDirectory()) {
    throw tooWide(`${absolute} is not a directory of its own`, 'name the directory, not a link');
  }
  refuseWideModes(absolute, stats, '700');
  return absolute;
}

async function syncDirectory(path: string): Promise<void> {
  if (!hasModes) return; // Windows cannot open a directory to flush it.
  const directory = await open(path, constants.O_RDONLY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Replaces `path` (0600) at once and durably: at every moment the old or the new content is there, whole. */
export async function writeSecretFile(path: string, data: string | Uint8Array): Promise<void> {
  const directory = dirname(path);
  const temporary = join(directory, `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(directory);
}

/**
 * Reads a file that only we may read. Throws ERR_CONFIG_NOT_FOUND when there is none, ERR_CONFIG_PERMISSIONS for
 * a link, another owner or a wider mode, ERR_CONFIG_INVALID for one that is too large.
 */
export async function readSecretFile(path: string): Promise<string> {
  let file;
  try {
    file = await open(path, constants.O_RDONLY | (hasModes ? constants.O_NOFOLLOW : 0));
  } catch (cause) {
    const code = systemCode(cause);
    if (code === 'ENOENT') {
      throw new ZtnaError('ERR_CONFIG_NOT_FOUND', { message: `there is no ${path}`, cause });
    }
    throw tooWide(
      `${path} cannot be opened (${code ?? 'unknown'})`,
      'it must be a plain file of your own, mode 600',
      cause,
    );
  }
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw tooWide(`${path} is not a plain file`, 'remove it');
    refuseWideModes(path, stats, '600');
    if (stats.size > maxSecretFileBytes) {
      throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${path} is too large` });
    }
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}
