import { join } from 'node:path';
import * as v from 'valibot';
import { readSecretFile, writeSecretFile } from '../../protocol/host/index.ts';
import type { Profile } from '../agent/profile.ts';

/** What is kept of one app's listener: the port it was given, and the address the person chose with --remember. */
export interface RememberedPort {
  readonly automatic: number | null;
  readonly chosen: string | null;
}

const port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const memorySchema = v.record(
  v.string(),
  v.strictObject({ automatic: v.nullable(port), chosen: v.nullable(v.string()) }),
);

const nothing: RememberedPort = { automatic: null, chosen: null };

const fileOf = (profile: Profile): string => join(profile.dir, 'ports.json');

async function readAll(profile: Profile): Promise<Map<string, RememberedPort>> {
  try {
    const stored = v.parse(memorySchema, JSON.parse(await readSecretFile(fileOf(profile))));
    return new Map(Object.entries(stored));
  } catch {
    return new Map(); // missing or spoilt: a port is then chosen as for the first time
  }
}

/** What is remembered of an app's port; empty when nothing is. */
export async function recallPort(profile: Profile, app: string): Promise<RememberedPort> {
  return (await readAll(profile)).get(app) ?? nothing;
}

/** Remembers an app's port for the next time, over what was remembered before. */
export async function rememberPort(
  profile: Profile,
  app: string,
  port: Partial<RememberedPort>,
): Promise<void> {
  const all = await readAll(profile);
  all.set(app, { ...(all.get(app) ?? nothing), ...port });
  await writeSecretFile(fileOf(profile), JSON.stringify(Object.fromEntries(all)));
}
