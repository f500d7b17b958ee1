import { fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Writable } from 'node:stream';

/** Standard output as something that can be ended: whoever reads it sees the end while this process lives on. */
export interface ClosableOutput {
  readonly stream: Writable;
  /** Writes what waits, then closes the file descriptor. */
  end(onClosed: () => void): void;
}

/**
 * Opens standard output for the bytes of an app. `process.stdout` itself is never closed by Node, so an app's
 * end would only show when the process ends.
 */
export function openStdioOutput(fd = 1): ClosableOutput {
  const kind = fstatSync(fd);
  if (!kind.isFIFO() && !kind.isSocket()) {
    const stream = process.stdout; // a file or a terminal: its end is of no consequence
    return { stream, end: (onClosed) => void stream.write('', onClosed) };
  }
  const stream = new Socket({ fd, readable: false, writable: true, allowHalfOpen: true });
  return {
    stream,
    end: (onClosed) => {
      if (kind.isSocket()) {
        stream.end(onClosed); // shuts down our direction; the other may be standard input
        return;
      }
      stream.write(Buffer.alloc(0), () => {
        stream.once('close', onClosed);
        stream.destroy();
      });
    },
  };
}
