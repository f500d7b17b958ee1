import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isId, ZtnaError } from '../../protocol/index.ts';
import { systemCode } from '../../protocol/host/index.ts';

/** The control plane that `init` makes; those that join are called as their relay is. */
export const firstControlPlaneId = 'cp';

export const controlPlaneIdFile = 'id';

/** What this control plane is called among those that share the store: in audit records, and as an owner of tunnels. */
export async function readControlPlaneId(directory: string): Promise<string> {
  const path = join(directory, controlPlaneIdFile);
  let text: string;
  try {
    text = (await readFile(path, 'utf8')).trim();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return firstControlPlaneId;
    throw error;
  }
  if (isId('relay', text)) return text;
  throw new ZtnaError('ERR_CONFIG_INVALID', { message: `${path} does not hold the id of a relay` });
}
