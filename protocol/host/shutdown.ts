/** Why this process was asked to end. */
export type ShutdownCause = 'SIGINT' | 'SIGTERM' | 'stdout_closed';

const controller = new AbortController();
let isTaken = false;
let isWatching = false;
let cause: ShutdownCause | undefined;

/**
 * Aborts when the process is asked to end: Ctrl-C, SIGTERM, or a reader of stdout that is gone. Whoever takes it
 * must end the command in good order; a second request ends the process at once. A command that never takes it is
 * ended by the first.
 */
export function shutdownSignal(): AbortSignal {
  isTaken = true;
  return controller.signal;
}

/** What the process was asked to end for, if it was. */
export function shutdownCause(): ShutdownCause | undefined {
  return cause;
}

/** The exit code after a shutdown: 130 for Ctrl-C, 0 for the others. */
export function shutdownExitCode(of: ShutdownCause): number {
  return of === 'SIGINT' ? 130 : 0;
}

/** Watches for requests to end. Called once by `runCommandLine`. */
export function watchShutdown(): void {
  if (isWatching) return;
  isWatching = true;
  process.on('SIGINT', () => {
    requestShutdown('SIGINT');
  });
  process.on('SIGTERM', () => {
    requestShutdown('SIGTERM');
  });
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') requestShutdown('stdout_closed');
  });
  process.stderr.on('error', () => undefined); // Talk that nobody hears stops nothing.
}

/** Asks this process to end, as a signal does. */
export function requestShutdown(by: ShutdownCause): void {
  const isRepeated = cause !== undefined && by !== 'stdout_closed';
  cause ??= by;
  if (!isTaken || isRepeated) {
    process.exit(by === 'SIGTERM' && !isTaken ? 143 : shutdownExitCode(cause));
  }
  controller.abort();
}
