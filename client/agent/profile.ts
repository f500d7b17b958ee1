import { mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { isName, ZtnaError } from '../../protocol/index.ts';
import { openStateDir } from '../../protocol/host/index.ts';

/** Where one organisation's identity and settings lie: one directory per profile, 0700. */
export interface Profile {
  readonly name: string;
  readonly dir: string;
}

export const defaultProfileName = 'default';

/** The directory of all profiles: `ZTNA_HOME`, else the platform's usual place for state. */
export function stateHome(
  env: NodeJS.ProcessEnv = process.env,
  platform: NodeJS.Platform = process.platform,
  home: string = homedir(),
): string {
  const own = env['ZTNA_HOME'];
  if (own) return resolve(own);
  const xdg = env['XDG_STATE_HOME'];
  if (xdg?.startsWith('/')) return join(xdg, 'ztna'); // the specification says to ignore a relative one
  if (platform === 'darwin') return join(home, 'Library', 'Application Support', 'ztna');
  if (platform === 'win32') {
    return join(env['LOCALAPPDATA'] ?? join(home, 'AppData', 'Local'), 'ztna');
  }
  return join(home, '.local', 'state', 'ztna');
}

/**
 * Opens the named profile and makes its directory when it is missing.
 * Throws ERR_CONFIG_USAGE for a name that is none, ERR_CONFIG_PERMISSIONS when others may read the directory.
 */
export async function openProfile(
  name: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Profile> {
  const chosen = name ?? (env['ZTNA_PROFILE'] || defaultProfileName);
  if (!isName(chosen)) {
    throw new ZtnaError('ERR_CONFIG_USAGE', {
      message: 'that is not the name of a profile',
      hint: 'use lower-case letters, digits, dots and dashes',
      hop: 'client',
    });
  }
  const home = stateHome(env);
  await mkdir(dirname(home), { recursive: true });
  await openStateDir(home);
  return { name: chosen, dir: await openStateDir(join(home, chosen)) };
}
