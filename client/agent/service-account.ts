import { createPrivateKey } from 'node:crypto';
import { open, realpath, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import {
  serviceProofSchema,
  signingKey,
  signStatement,
  toZtnaError,
  ZtnaError,
  type DeviceId,
  type SessionFacts,
} from '../../protocol/index.ts';
import { readSecretFile, writeSecretFile } from '../../protocol/host/index.ts';
import type { Request } from './agent-messages.ts';
import type { Agent } from './agent.ts';
import type { Profile } from './profile.ts';

/** As much as the relay takes. */
const maxTokenBytes = 16_384;

const schema = v.strictObject({
  service: v.string(),
  device: v.string(),
  proof: v.variant('kind', [
    v.strictObject({ kind: v.literal('key'), file: v.string() }),
    v.strictObject({ kind: v.literal('token'), file: v.string() }),
  ]),
});

/** The service that this machine is signed in as, and the file that proves it, which is read anew each time. */
export type ServiceAccount = v.InferOutput<typeof schema>;

const fileOf = (profile: Profile): string => join(profile.dir, 'service.json');

/** The service of this profile; undefined where it is a person's, or was another device's. */
export async function readServiceAccount(
  profile: Profile,
  device: string,
): Promise<ServiceAccount | undefined> {
  try {
    const account = v.parse(schema, JSON.parse(await readSecretFile(fileOf(profile))));
    return account.device === device ? account : undefined;
  } catch {
    return undefined; // missing or spoilt: to be signed in anew
  }
}

export async function keepServiceAccount(profile: Profile, account: ServiceAccount): Promise<void> {
  await writeSecretFile(fileOf(profile), JSON.stringify(account));
}

/** From then on nobody is signed in here without being asked. */
export async function forgetServiceAccount(profile: Profile): Promise<void> {
  await rm(fileOf(profile), { force: true });
}

/**
 * Signs the service in, without a question. Throws ERR_CONFIG_* for a file that does not do, and what the sign-in was refused
 * with.
 */
export async function signInService(
  agent: Pick<Agent, 'request'>,
  account: ServiceAccount,
): Promise<SessionFacts> {
  const { service, proof } = account;
  try {
    const by = await prove(agent, account);
    return (await agent.request({ type: 'service_sign_in', service, proof: by })).session;
  } catch (cause) {
    const { code } = toZtnaError(cause);
    if (code !== 'ERR_IDENTITY_SIGN_IN_REFUSED') throw cause;
    throw new ZtnaError(code, {
      message: `the relay does not take this ${proof.kind} for ${service} on this machine`,
      hint: 'its audit log has the reason: session.sign_in, refused',
      hop: 'relay',
      cause,
    });
  }
}

async function prove(
  agent: Pick<Agent, 'request'>,
  { service, device, proof }: ServiceAccount,
): Promise<Request<'service_sign_in'>['proof']> {
  if (proof.kind === 'token') return { kind: 'token', token: await readToken(proof.file) };
  const key = await readKey(proof.file);
  const { nonce } = await agent.request({ type: 'service_challenge' });
  const claim = { service, device: device as DeviceId, nonce };
  return { kind: 'key', statement: signStatement('service', serviceProofSchema, claim, key) };
}

async function readKey(path: string): Promise<ReturnType<typeof signingKey>> {
  // Where secrets are mounted, the file is a link to its newest version.
  const text = await readSecretFile(await realpath(path).catch(() => path));
  try {
    const key = createPrivateKey(text);
    if (key.asymmetricKeyType === 'ed25519') return signingKey(key);
  } catch (cause) {
    throw unusable(path, 'no private key in PEM', cause);
  }
  throw unusable(path, 'no Ed25519 key');
}

/** A token is no lasting secret, and what mounts it chooses its modes. */
async function readToken(path: string): Promise<string> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    throw new ZtnaError('ERR_CONFIG_NOT_FOUND', {
      message: `cannot read ${path}`,
      hop: 'client',
      cause,
    });
  }
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(maxTokenBytes + 1));
    const token = buffer.toString('latin1', 0, bytesRead).trim();
    if (bytesRead <= maxTokenBytes && /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)) return token;
  } finally {
    await file.close();
  }
  throw unusable(path, 'no signed token');
}

function unusable(path: string, what: string, cause?: unknown): ZtnaError {
  return new ZtnaError('ERR_CONFIG_INVALID', {
    message: `${path} holds ${what}`,
    hop: 'client',
    cause,
  });
}
