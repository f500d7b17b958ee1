import { open, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { systemCode } from '../../../protocol/host/index.ts';

const fileName = 'high-water.json';

const number = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const marksSchema = v.strictObject({
  incarnation: number,
  position: number,
  fencing: number,
  controlTimeMs: number,
});

/** How far the store had come: what machines that stayed up may remember of it. None of these ever falls. */
export type HighWater = v.InferOutput<typeof marksSchema>;

const fileSchema = v.strictObject({
  ...marksSchema.entries,
  /** When this very file was made, as the file system states it: a copy of the file states another's. */
  bornAtNs: v.nullable(v.string()),
});

/** Why the store is taken for a restored one. */
export type Regression = 'store_older' | 'mark_copied' | 'mark_missing';

/** What lies beside the store, outside of it: the marks, and whether the file is the one that was written. */
export interface KeptMarks {
  readonly marks: HighWater;
  readonly isCopy: boolean;
}

/** Reads the marks in `directory`; undefined when there are none that can be read. */
export async function readHighWater(directory: string): Promise<KeptMarks | undefined> {
  const path = join(directory, fileName);
  try {
    const file = await open(path, 'r');
    try {
      const { birthtimeNs } = await file.stat({ bigint: true });
      const json: unknown = JSON.parse(await readFile(file, 'utf8'));
      const { bornAtNs, ...marks } = v.parse(fileSchema, json);
      return { marks, isCopy: bornAtNs !== null && bornAtNs !== String(birthtimeNs) };
    } finally {
      await file.close();
    }
  } catch (error) {
    const isAbsent = systemCode(error) === 'ENOENT';
    if (isAbsent || error instanceof SyntaxError || v.isValiError(error)) return undefined;
    throw error;
  }
}

/** Replaces the marks, whole and durably. Write what the store holds already, so that they are never ahead of it. */
export async function writeHighWater(directory: string, marks: HighWater): Promise<void> {
  const path = join(directory, fileName);
  const temporary = `${path}.tmp`; // the directory is locked: there is one writer
  await rm(temporary, { force: true });
  const file = await open(temporary, 'wx', 0o600);
  try {
    const { birthtimeNs } = await file.stat({ bigint: true });
    // Where the file system does not know, it says 0.
    const bornAtNs = birthtimeNs === 0n ? null : String(birthtimeNs);
    await file.writeFile(`${JSON.stringify({ ...marks, bornAtNs })}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const parent = await open(directory, 'r');
  try {
    await parent.sync();
  } finally {
    await parent.close();
  }
}

/**
 * Whether the store is not the one that ran here last but an earlier state of it, as after a restored backup.
 * Without marks, a store that has served before may be one, restored elsewhere.
 */
export function findRegression(
  stored: HighWater,
  kept: KeptMarks | undefined,
): Regression | undefined {
  if (!kept) return stored.fencing > 0 ? 'mark_missing' : undefined;
  const { marks, isCopy } = kept;
  const isOlder =
    stored.incarnation < marks.incarnation ||
    (stored.incarnation === marks.incarnation && stored.position < marks.position) ||
    stored.fencing < marks.fencing ||
    stored.controlTimeMs < marks.controlTimeMs;
  if (isOlder) return 'store_older';
  return isCopy ? 'mark_copied' : undefined;
}
