import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseEnrolmentCode, ZtnaError } from '../../protocol/index.ts';
import {
  enrol,
  loadIdentity,
  machineFacts,
  openStateDir,
  readSecretArgument,
  saveIdentity,
  type Identity,
} from '../../protocol/host/index.ts';
import { configFileName } from '../config.ts';

/**
 * Makes sure that `dir` holds a data plane: the one that is there, or a new one by the code. Throws
 * ERR_IDENTITY_NOT_ENROLLED without either, ERR_CONFIG_EXISTS for a directory with a control plane, and as `enrol`.
 */
export async function prepareDataPlane(dir: string, codeSource: string | undefined): Promise<void> {
  await openStateDir(dir);
  if (existsSync(join(dir, 'control-plane'))) {
    throw new ZtnaError('ERR_CONFIG_EXISTS', {
      message: `${dir} holds a control plane`,
      hint: `run both: ztna-relay run --dir ${dir}; or give the data plane another --dir`,
    });
  }
  const own = join(dir, 'data-plane');
  const identity = (await loadIdentity(own)) ?? (await enrolDataPlane(dir, own, codeSource));
  const config = join(dir, configFileName);
  if (!existsSync(config)) await writeFile(config, configText(identity), { mode: 0o600 });
}

async function enrolDataPlane(
  dir: string,
  own: string,
  codeSource: string | undefined,
): Promise<Identity> {
  if (codeSource === undefined) {
    throw new ZtnaError('ERR_IDENTITY_NOT_ENROLLED', {
      message: `there is no data plane in ${dir}`,
      hint: 'add --enroll - or file:PATH with the code that this prints: ztna-relay invite relay NAME --url URL',
    });
  }
  const code = parseEnrolmentCode(await readSecretArgument(codeSource));
  const { identity } = await enrol({
    code,
    ...machineFacts(),
    password: null,
    expectRole: 'data-plane',
    relay: 'data-plane',
  });
  await saveIdentity(own, identity);
  process.stderr.write(`enrolled ${identity.id} at ${code.url}\n`);
  return identity;
}

function configText({ profile, relayUrl }: Identity): string {
  return `# How agents and connectors reach this relay. Its certificate names it.
url: ${profile['url'] ?? relayUrl}

# Where it listens; by default on every address, on the port of the url.
#listen: 0.0.0.0:443
`;
}
