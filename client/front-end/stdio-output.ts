import { closeSync, fstatSync, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { devNull } from 'node:os';
import type { Writable } from 'node:stream';

/** Standard output as something that can be ended: whoever reads it sees the end while this process lives on. */
export interface ClosableOutput {
  readonly stream: Writable;
  /** Writes what waits, then ends our direction. */
  end(onEnded: () => void): void;
}

const stdoutFd = 1;

/**
 * Opens standard output for the bytes of an app. Node never closes `process.stdout`, so an app's end would only show
 * when this process ends.
 */
export function openStdioOutput(): ClosableOutput {
  const kind = fstatSync(stdoutFd);
  const stream = process.stdout;
  if (kind.isSocket()) {
    const socket = new Socket({ fd: stdoutFd, readable: false, writable: true });
    return { stream: socket, end: (onEnded) => void socket.end(onEnded) };
  }
  return {
    stream,
    end: (onEnded) => {
      stream.write('', () => {
        if (kind.isFIFO()) closePipe();
        onEnded();
      });
    },
  };
}

/** Closes the pipe under `process.stdout`; something harmless takes its number, which Node believes to be open. */
function closePipe(): void {
  closeSync(stdoutFd);
  openSync(devNull, 'w');
}
