/**
 * Enrols devices by the hundred without a relay: what enrolment leaves behind, written by the control plane's own modules
 * into the store and the key files of a relay that is down. Each device has its own user, session, certificate, Ed25519
 * and X25519 key; TLS keys are shared by many, as making one costs more than everything else.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { join } from 'node:path';
import { newId, rawPublicKey, verifyBundle } from '../../protocol/index.ts';
import { createTlsKey, saveIdentity } from '../../protocol/host/index.ts';
import { loadAuthority } from '../../relay/control-plane/authority/index.ts';
import { addDevice } from '../../relay/control-plane/devices/index.ts';
import { certificateLifeMs } from '../../relay/control-plane/enrolment/certificate.ts';
import { startSession } from '../../relay/control-plane/identity/index.ts';
import { openStore, readMeta } from '../../relay/control-plane/store/index.ts';
import { stateHome } from '../../client/agent/profile.ts';
import { serveLines } from './line-server.ts';

const sharedTlsKeys = 8;
const devicesInTransaction = 100;
const hourMs = 3_600_000;

interface Place {
  /** Of the relay. */
  readonly dir: string;
  readonly url: string;
}

interface Home {
  readonly user: string;
  readonly home: string;
}

async function makeDevices({ dir, url }: Place, homes: readonly Home[]): Promise<void> {
  const directory = join(dir, 'control-plane');
  const authority = await loadAuthority(directory);
  const store = await openStore({ directory });
  try {
    const kept = await readMeta(store.db, 'bundle');
    if (kept === undefined) throw new Error('the relay has never run');
    const { statement } = JSON.parse(kept) as { readonly statement: string };
    const bundle = verifyBundle(statement, { rootId: authority.rootId, minVersion: 0 }, Date.now());
    const tlsKeys = await Promise.all(Array.from({ length: sharedTlsKeys }, createTlsKey));

    const makeOne = async (
      tx: Parameters<typeof addDevice>[0],
      { user: name, home }: Home,
      index: number,
    ): Promise<void> => {
      const nowMs = Date.now();
      const { privateKey: signingKey } = generateKeyPairSync('ed25519');
      const { privateKey: noiseKey } = generateKeyPairSync('x25519');
      const noisePublicKey = rawPublicKey(noiseKey);
      const userId = newId('user');
      await tx
        .insertInto('users')
        .values({
          id: userId,
          name,
          role: null,
          disabled: 0,
          passwordHash: null,
          expiresAtMs: null,
          createdAtMs: nowMs,
        })
        .execute();
      const { id } = await addDevice(tx, {
        userId,
        hostname: name,
        platform: process.platform,
        signingKey: rawPublicKey(signingKey).toString('base64url'),
        noiseKey: noisePublicKey.toString('base64url'),
        state: 'enrolled',
        maxPerUser: 1,
        nowMs,
      });
      await startSession(tx, {
        userId,
        deviceId: id,
        provider: 'local',
        methods: ['password'],
        limits: { idleMs: 12 * hourMs, absoluteMs: 24 * hourMs },
        nowMs,
      });
      const tlsKeyPem = tlsKeys[index % tlsKeys.length] ?? '';
      const certificate = await authority.issueForKey(
        createPublicKey(createPrivateKey(tlsKeyPem)),
        {
          role: 'device',
          id,
          lifeMs: certificateLifeMs.device,
          nowMs,
        },
      );
      await tx
        .updateTable('devices')
        .set({
          certificateSerial: certificate.serial,
          certificateNotAfterMs: certificate.notAfterMs,
        })
        .where('id', '=', id)
        .execute();
      await saveIdentity(join(stateHome({ ZTNA_HOME: home }), 'default'), {
        id,
        role: 'device',
        relayUrl: url,
        rootId: authority.rootId,
        tlsKeyPem,
        certificatePem: certificate.pem,
        signingKey,
        noiseKey,
        noisePublicKey,
        bundle,
        profile: { user: name, hostname: name },
      });
    };

    for (let at = 0; at < homes.length; at += devicesInTransaction) {
      const batch = homes.slice(at, at + devicesInTransaction);
      await store.write(async (tx) => {
        for (const [index, home] of batch.entries()) await makeOne(tx, home, at + index);
      });
    }
  } finally {
    await store.close();
  }
}

serveLines({
  make: ({ dir, url, homes }) =>
    makeDevices({ dir: String(dir), url: String(url) }, homes as readonly Home[]),
});
