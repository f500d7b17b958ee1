import type { FileAnswer } from '../../../client/posture/read-file.ts';
import type { ToolAnswer, ToolFailure } from '../../../client/posture/run-tool.ts';

/** A tool that printed this and ended. */
export const said = (stdout: string, exitCode = 0, stderr = ''): ToolAnswer => ({
  exitCode,
  stdout,
  stderr,
});

export const missing: ToolFailure = { failure: 'missing' };

export const failures: readonly ToolFailure[] = [
  missing,
  { failure: 'timeout' },
  { failure: 'flood' },
  { failure: 'killed' },
];

/** A file that holds this. */
export const holds = (bytes: string | readonly number[]): FileAnswer => ({
  bytes: typeof bytes === 'string' ? Buffer.from(bytes) : Buffer.from(bytes),
  modifiedAtMs: 0,
});

export const noFile: FileAnswer = { failure: 'missing' };
