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

/** Enrols with a one-time code and keeps the new identity. Throws as `enrol`. */
export async function enrolConnector(dir: string, codeSource: string): Promise<Identity> {
  const code = parseEnrolmentCode(await readSecretArgument(codeSource));
  const { identity } = await enrol({
    code,
    ...machineFacts(),
    password: null,
    expectRole: 'connector',
  });
  await saveIdentity(dir, identity);
  return identity;
}

/** `ztna-connector enroll`: refuses to give up an identity that is there. */
export async function runEnroll(options: {
  readonly dir: string;
  readonly code: string;
}): Promise<void> {
  const dir = await openStateDir(options.dir);
  const present = await loadIdentity(dir);
  if (present) {
    throw new ZtnaError('ERR_IDENTITY_ALREADY_ENROLLED', {
      message: `${dir} holds ${present.id} of ${present.relayUrl} already`,
      hint: `run it: ztna-connector run --dir ${dir}; or choose another --dir`,
    });
  }
  const identity = await enrolConnector(dir, options.code);
  process.stdout.write(`${identity.id}\n`);
  process.stderr.write(`enrolled at ${identity.relayUrl}\nnext: ztna-connector run --dir ${dir}\n`);
}

/** The identity to run with: the one that is there, or a new one by `codeSource`, so that a restart keeps it. */
export async function identityForRun(
  dir: string,
  codeSource: string | undefined,
): Promise<Identity> {
  const present = await loadIdentity(dir);
  if (present) {
    if (present.role !== 'connector') throw new ZtnaError('ERR_IDENTITY_ROLE');
    return present;
  }
  if (codeSource === undefined) {
    throw new ZtnaError('ERR_IDENTITY_NOT_ENROLLED', {
      message: `${dir} holds no identity`,
      hint: `enrol first: ztna-connector enroll --dir ${dir} CODE (from: ztna-relay invite connector NAME --app APP)`,
    });
  }
  return enrolConnector(dir, codeSource);
}
