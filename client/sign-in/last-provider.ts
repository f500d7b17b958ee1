import { join } from 'node:path';
import * as v from 'valibot';
import { readSecretFile, writeSecretFile } from '../../protocol/host/index.ts';
import type { Profile } from '../agent/profile.ts';

const schema = v.strictObject({ provider: v.string() });

const fileOf = (profile: Profile): string => join(profile.dir, 'sign-in.json');

/** Where the user of this profile signed in the last time; undefined where that is not known. */
export async function recallProvider(profile: Profile): Promise<string | undefined> {
  try {
    return v.parse(schema, JSON.parse(await readSecretFile(fileOf(profile)))).provider;
  } catch {
    return undefined; // missing or spoilt: the way is chosen as for the first time
  }
}

/** Remembers where the user has signed in, so that the next time nothing has to be asked. */
export async function rememberProvider(profile: Profile, provider: string): Promise<void> {
  if ((await recallProvider(profile)) === provider) return;
  await writeSecretFile(fileOf(profile), JSON.stringify({ provider }));
}
