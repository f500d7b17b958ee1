import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  createNoiseKey,
  createSigningKey,
  openStateDir,
  saveIdentity,
} from '../../protocol/host/index.ts';
import { newId, rawPublicKey, verifyBundle, ZtnaError } from '../../protocol/index.ts';
import { configFileName } from '../config.ts';
import { createAuthority } from '../control-plane/authority/index.ts';
import { ensureBundle } from '../control-plane/enrolment/bundle.ts';
import { certificateLifeMs, hostOf } from '../control-plane/enrolment/certificate.ts';
import { relayKeyName } from '../control-plane/relays/relay.ts';
import { openStore, readMeta, writeMeta, type Store } from '../control-plane/store/index.ts';

/** Refuses a directory that holds a relay, or anything at all of one. Throws ERR_CONFIG_EXISTS. */
export async function refuseExisting(dir: string): Promise<void> {
  if (!existsSync(dir)) return;
  const names = ['control-plane', 'data-plane', configFileName, 'admin.sock'];
  const there = (await readdir(dir)).find((name) => names.includes(name));
  if (there === undefined) return;
  throw new ZtnaError('ERR_CONFIG_EXISTS', {
    message: `there is a relay in ${dir} already (${there})`,
    hint: 'choose another --dir; nothing is ever overwritten',
  });
}

/**
 * Makes keys, store, data-plane identity and relay.yaml in `dir`. Throws ERR_CONFIG_EXISTS where there is one of them,
 * and for a PostgreSQL store that holds a relay.
 */
export async function makeRelay(
  dir: string,
  url: string,
  configText: string,
  storeUrl: string | null = null,
): Promise<void> {
  await refuseExisting(dir);
  await openStateDir(dir);
  const directory = join(dir, 'control-plane');
  const store = await openUnused(directory, storeUrl);
  try {
    await fill(store, dir, url);
  } finally {
    await store.close();
  }
  // Last, because `run` begins with it: what is there without it was never finished.
  await writeFile(join(dir, configFileName), configText, { flag: 'wx', mode: 0o600 });
}

/** A store that others share may hold a relay, with another root, already. A failure leaves no directory behind. */
async function openUnused(directory: string, url: string | null): Promise<Store> {
  let store: Store | undefined;
  try {
    store = await openStore({ directory, url });
    if ((await readMeta(store.db, 'bundle')) === undefined) return store;
    throw new ZtnaError('ERR_CONFIG_EXISTS', {
      message: 'there is a relay in this store already',
      hint: 'join it: ztna-relay init --join CODE; or name another schema: ?schema=NAME',
    });
  } catch (error) {
    await store?.close();
    await rmdir(directory).catch(() => undefined);
    throw error;
  }
}

async function fill(store: Store, dir: string, url: string): Promise<void> {
  const directory = join(dir, 'control-plane');
  const nowMs = Date.now();
  const clock = { nowMs: () => Date.now() };
  const authority = await createAuthority({ directory, nowMs });
  const bundle = await ensureBundle(store, authority, clock);
  const id = newId('relay');
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const certificate = await authority.issueForKey(createPublicKey(privateKey), {
    role: 'data-plane',
    id,
    hosts: [hostOf(url)],
    lifeMs: certificateLifeMs['data-plane'],
    nowMs,
  });
  const [signingKey, noiseKey] = await Promise.all([createSigningKey(), createNoiseKey()]);
  await store.write(async (tx) => {
    await tx
      .insertInto('relays')
      .values({
        id,
        name: 'local',
        url,
        state: 'enrolled',
        certificateSerial: certificate.serial,
        certificateNotAfterMs: certificate.notAfterMs,
        createdAtMs: nowMs,
        lastSeenAtMs: null,
        isControl: 1,
        isDraining: 0,
      })
      .execute();
    await writeMeta(tx, relayKeyName(id), rawPublicKey(signingKey).toString('base64url'));
  });
  await mkdir(join(dir, 'data-plane'), { mode: 0o700 });
  await saveIdentity(join(dir, 'data-plane'), {
    id,
    role: 'data-plane',
    relayUrl: url,
    rootId: authority.rootId,
    tlsKeyPem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificatePem: certificate.pem,
    signingKey,
    noiseKey,
    noisePublicKey: rawPublicKey(noiseKey),
    bundle: verifyBundle(bundle.statement, { rootId: authority.rootId, minVersion: 0 }, nowMs),
    profile: { name: 'local' },
  });
}
