import { rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import {
  decodeMessage,
  encodeMessage,
  joinAnswer,
  joiningSchema,
  joinPath,
  joinRequest,
  signingKey,
  signStatement,
  verifyBundle,
  ZtnaError,
  type Bundle,
  type EnrolmentCode,
  type Joining,
} from '../../protocol/index.ts';
import {
  enrol,
  machineFacts,
  openStateDir,
  requestEnrolment,
  saveIdentity,
  type Identity,
} from '../../protocol/host/index.ts';
import { configFileName } from '../config.ts';
import { createAuthority, writeSealKey, type Authority } from '../control-plane/authority/index.ts';
import { controlPlaneIdFile } from '../control-plane/control-plane-id.ts';
import { keepMarks, openStore, readMeta, type Store } from '../control-plane/store/index.ts';
import { refuseExisting } from './make-relay.ts';
import { relayConfigText } from './relay-yaml.ts';

/** How long the machines that have a channel get to learn of the new keys before those sign anything. */
const spreadMs = 3_000;

/** The answer holds a bundle of every control plane's certificate. */
const maxAnswerBytes = 131_072;

/**
 * Makes a further control plane, with its data plane, in `dir`: keys of its own, which never leave this machine and
 * which the root signs into the bundle, on the store that the others share. Throws ERR_CONFIG_EXISTS where there is one,
 * ERR_CONFIG_INVALID for a store of another deployment, and as `enrol` and the answer to joining do.
 */
export async function joinRelay(
  dir: string,
  code: EnrolmentCode,
  storeUrl: string,
  waitMs = spreadMs,
): Promise<{ readonly url: string }> {
  await refuseExisting(dir);
  await openStateDir(dir);
  const directory = join(dir, 'control-plane');
  const store = await openStore({ directory, url: storeUrl }).catch((error: unknown) =>
    leaveNothing(directory, error),
  );
  try {
    const root = await readRoot(store, code);
    const { identity } = await enrol({
      code,
      ...machineFacts(),
      password: null,
      expectRole: 'data-plane',
      relay: 'control-plane',
    });
    const url = identity.profile['url'] ?? identity.relayUrl;
    const authority = await createAuthority({ directory, nowMs: Date.now(), root });
    const { bundle, sealKey } = await offerKeys(identity, authority);
    if (sealKey !== undefined) writeSealKey(directory, Buffer.from(sealKey, 'base64url'));
    await writeFile(join(directory, controlPlaneIdFile), `${identity.id}\n`, {
      flag: 'wx',
      mode: 0o600,
    });
    await saveIdentity(join(dir, 'data-plane'), { ...identity, bundle });
    await keepMarks(store, directory);
    await delay(waitMs);
    // Last, because `run` begins with it: what is there without it was never finished.
    await writeFile(join(dir, configFileName), relayConfigText(url, storeUrl), {
      flag: 'wx',
      mode: 0o600,
    });
    return { url };
  } catch (error) {
    await store.close();
    return await leaveNothing(directory, error);
  } finally {
    await store.close();
  }
}

/** Removes the directory that opening a store makes, if there are no keys in it: else the next try would be refused. */
async function leaveNothing(directory: string, error: unknown): Promise<never> {
  await rmdir(directory).catch(() => undefined);
  throw error;
}

/** The root's key, of a store that is the deployment's whose code this is. */
async function readRoot(store: Store, code: EnrolmentCode): Promise<Buffer> {
  const kept = await readMeta(store.db, 'bundle');
  try {
    const { statement } = JSON.parse(kept ?? '{}') as { statement?: string };
    verifyBundle(statement ?? '', { rootId: code.rootId, minVersion: 0 }, 0);
    const payload = Buffer.from(statement?.split('.')[2] ?? '', 'base64url').toString('utf8');
    return Buffer.from((JSON.parse(payload) as { root: string }).root, 'base64url');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_INVALID', {
      message: 'the store is not that of the deployment whose code this is',
      hint: 'name the same store, and the same schema, as store: in its relay.yaml',
      cause,
    });
  }
}

/**
 * Asks for a bundle that names the keys, proved by each of them, and for the key that all control planes seal with. Throws
 * what they were refused with.
 */
export async function offerKeys(
  identity: Identity,
  authority: Authority,
): Promise<{ readonly bundle: Bundle; readonly sealKey: string | undefined }> {
  const { id, ...keys } = authority.publicKeys(identity.id as `rel_${string}` & Joining['relay']);
  const joining = { relay: id as Joining['relay'], ...keys };
  const sign = (key: Parameters<typeof signStatement>[3]) =>
    signStatement('joining', joiningSchema, joining, key);
  const body = encodeMessage(joinRequest, {
    relay: sign(signingKey(identity.signingKey)),
    grant: sign(authority.grantKey),
    roster: sign(authority.rosterKey),
    audit: sign(authority.auditKey),
  });
  const { bundle, rootId, relayUrl } = identity;
  const text = await requestEnrolment(
    { url: relayUrl, trust: { authorities: bundle.authorities, role: 'control-plane' } },
    joinPath,
    body,
  );
  const answer = decodeMessage(joinAnswer, text, maxAnswerBytes);
  const pinned = { rootId, minVersion: bundle.version };
  return { bundle: verifyBundle(answer.bundle, pinned, Date.now()), sealKey: answer.sealKey };
}
