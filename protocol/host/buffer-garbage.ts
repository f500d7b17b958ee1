import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** A young collection after this many bytes of buffers were let go. */
const collectEveryBytes = 16_777_216;

let leftBytes = collectEveryBytes;
let collectYoung: (() => void) | undefined;

/**
 * Told by whoever moves bulk data how many bytes of buffers it has just let go of.
 *
 * V8 sees a 64 KiB buffer as a few dozen bytes on its heap and knows the rest as "external". Left alone it lets tens
 * of MiB of dead buffers pile up and then marks the whole heap to find them, many times a second under load. The dead
 * are all young, so a young collection now and then, under a millisecond each, frees them while they are still in the
 * processor's cache, and the full ones stay away. `docs/performance.md` has the figures.
 */
export function countGarbage(bytes: number): void {
  leftBytes -= bytes;
  if (leftBytes > 0) return;
  leftBytes = collectEveryBytes;
  collectYoung ??= prepare();
  collectYoung();
}

function prepare(): () => void {
  // Marking on other threads takes the processor from the two other processes of the path.
  setFlagsFromString('--no-concurrent-marking');
  // After a full collection the heap may grow fourfold before the next, the most that V8 chooses by itself. It would
  // choose far less for a small heap whose collections free little, and then what is let go of between two young
  // collections already reaches the limit: one full collection leads to the next.
  setFlagsFromString('--heap-growing-percent=300');
  // Buffers count toward the heap's own limit rather than starting a full collection at 64 MiB of them. V8 says so on
  // standard error when it does not know a flag; this one came with the V8 of Node 24.
  if (Number(process.versions.node.split('.')[0]) >= 24) {
    setFlagsFromString('--external-memory-accounted-in-global-limit');
  }
  setFlagsFromString('--expose-gc');
  const collect: unknown = runInNewContext('globalThis.gc');
  if (typeof collect !== 'function') return () => undefined; // only speed is lost
  return () => {
    (collect as (options: { type: 'minor' }) => void)({ type: 'minor' });
  };
}
