import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { off, on, unknown, type Finding } from './finding.ts';
import { isMissing, openPlainFile } from './read-file.ts';
import { Slots } from './slots.ts';

/** The largest file whose content is looked at. */
const maxHashedBytes = 67_108_864;

/** As many files as are looked at at once: one on a dead network drive holds a thread of the process, and others need some. */
const maxAtOnce = 2;

/** As many digests as are remembered. */
const maxRemembered = 64;

/** A digest, and what the file looked like that has it. */
interface Remembered {
  readonly identity: string;
  readonly sha256: string;
}

/** Looks for files, and at their content, which it reads again when size, time or place of the file have changed. */
export class FileChecks {
  readonly #remembered = new Map<string, Remembered>();
  readonly #slots = new Slots(maxAtOnce);

  /** Whether the file is there and, where that is asked, has this digest. */
  async find(path: string, sha256: string | null, signal: AbortSignal): Promise<Finding> {
    return this.#slots.run(() => this.#find(path, sha256, signal));
  }

  /** Whether there is nothing of that name. */
  async findNone(path: string, signal: AbortSignal): Promise<Finding> {
    return this.#slots.run(async () => {
      try {
        signal.throwIfAborted();
        await stat(path);
        return off('it is there');
      } catch (error) {
        return isMissing(error) ? on('it is not there') : unknown('it could not be looked at');
      }
    });
  }

  async #find(path: string, sha256: string | null, signal: AbortSignal): Promise<Finding> {
    try {
      signal.throwIfAborted();
      if (sha256 === null) {
        await stat(path);
        return on('it is there');
      }
      const found = await this.#digest(path, signal);
      if (found === 'no_file') return off('it is no plain file');
      if (found === 'too_large') return unknown('it is too large to be looked at');
      return found === sha256 ? on('its digest is as wanted') : off('its digest is another one');
    } catch (error) {
      return isMissing(error) ? off('it is not there') : unknown('it could not be looked at');
    }
  }

  async #digest(path: string, signal: AbortSignal): Promise<string> {
    const file = await openPlainFile(path);
    if (!file) return 'no_file';
    try {
      const { dev, ino, size, mtimeNs, ctimeNs } = await file.stat({ bigint: true });
      if (size > BigInt(maxHashedBytes)) return 'too_large';
      const identity = [dev, ino, size, mtimeNs, ctimeNs].join(' ');
      const last = this.#remembered.get(path);
      if (last?.identity === identity) return last.sha256;
      const hash = createHash('sha256');
      const buffer = Buffer.allocUnsafe(262_144);
      for (let total = 0; ;) {
        signal.throwIfAborted();
        const { bytesRead } = await file.read(buffer, 0, buffer.length);
        if (bytesRead === 0) break;
        total += bytesRead;
        if (total > maxHashedBytes) return 'too_large';
        hash.update(buffer.subarray(0, bytesRead));
      }
      const sha256 = hash.digest('hex');
      if (this.#remembered.size >= maxRemembered) this.#remembered.clear();
      this.#remembered.set(path, { identity, sha256 });
      return sha256;
    } finally {
      await file.close();
    }
  }
}
