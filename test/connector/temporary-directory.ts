import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';

/** A directory (0700) that is gone after the test. */
export async function temporaryDirectory(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-connector-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** A logger's lines as events with their fields. */
export function eventsOf(lines: readonly string[]): string[] {
  return lines.map((line) => (JSON.parse(line) as { event: string }).event);
}
