import { constants } from 'node:fs';
import { open, stat, type FileHandle } from 'node:fs/promises';
import { systemCode } from '../../protocol/host/index.ts';

/** Windows has no such thing. */
const nonBlocking = process.platform === 'win32' ? 0 : constants.O_NONBLOCK;

/** As much as is read of a file. */
export const maxFileBytes = 65_536;

export interface FileContent {
  readonly bytes: Buffer;
  readonly modifiedAtMs: number;
}

/** Why there is nothing to read: it is not there, it may not be read or is no plain file, or it is too large. */
export interface FileFailure {
  readonly failure: 'missing' | 'unreadable' | 'too_large';
}

export type FileAnswer = FileContent | FileFailure;

/** Reads a plain file of at most 64 KiB, which may be one of /proc or /sys. Never rejects, never waits for a pipe or device. */
export async function readPlainFile(path: string): Promise<FileAnswer> {
  let file: FileHandle | undefined;
  try {
    file = await openPlainFile(path);
    if (!file) return { failure: 'unreadable' };
    const { mtimeMs } = await file.stat();
    const buffer = Buffer.allocUnsafe(maxFileBytes + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await file.read(buffer, length, buffer.length - length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    if (length > maxFileBytes) return { failure: 'too_large' };
    return { bytes: buffer.subarray(0, length), modifiedAtMs: mtimeMs };
  } catch (error) {
    return { failure: isMissing(error) ? 'missing' : 'unreadable' };
  } finally {
    await file?.close().catch(() => undefined);
  }
}

/** Opens a plain file for reading; undefined for anything else. Throws what the system says. */
export async function openPlainFile(path: string): Promise<FileHandle | undefined> {
  // Merely to open a device can do something, and a pipe waits for its other end.
  if (!(await stat(path)).isFile()) return undefined;
  const file = await open(path, constants.O_RDONLY | nonBlocking);
  try {
    if ((await file.stat()).isFile()) return file;
  } catch (error) {
    await file.close();
    throw error;
  }
  await file.close();
  return undefined;
}

/** True when the system said that there is no such file. */
export function isMissing(error: unknown): boolean {
  const code = systemCode(error);
  return code === 'ENOENT' || code === 'ENOTDIR';
}

/** The text of a file, if it could be read. */
export function textOf(answer: FileAnswer): string | undefined {
  return 'failure' in answer ? undefined : answer.bytes.toString('utf8');
}
