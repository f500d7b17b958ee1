import { constants } from 'node:os';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const undone: (() => Promise<void>)[] = [];
let isLeaving = false;

/** Has `undo` done if this process is told to end before it is forgotten; answers how to forget it. */
export function onExit(undo: () => Promise<void>): () => void {
  undone.push(undo);
  return () => {
    const at = undone.indexOf(undo);
    if (at >= 0) undone.splice(at, 1);
  };
}

/** On a signal, undoes what is there, newest first, and ends with the exit code that the signal stands for. */
export function leaveNothingBehind(): void {
  for (const signal of signals)
    process.on(signal, () => {
      if (isLeaving) return;
      isLeaving = true;
      console.error(`\n${signal}: cleaning up`);
      void undoAll().finally(() => process.exit(128 + constants.signals[signal]));
    });
}

/** Comes back only when this process is not told to end; otherwise the way out is the signal's. */
export async function unlessLeaving(): Promise<void> {
  if (isLeaving) await new Promise(() => undefined);
}

async function undoAll(): Promise<void> {
  for (let undo = undone.pop(); undo; undo = undone.pop()) {
    try {
      await undo();
    } catch (error) {
      console.error(error);
    }
  }
}
