import { generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto';
import anyTest, { type TestFn } from 'ava';
import {
  parseEnrolmentCode,
  rawPublicKey,
  serviceProofSchema,
  signingKey,
  signStatement,
  type DeviceId,
} from '../../../../protocol/index.ts';
import { enrol } from '../../../../protocol/host/index.ts';
import { Rig, staffPolicy, type DevicePeer } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig }>;

test.before('a control plane', async (t) => {
  const rig = await Rig.start();
  rig.version = 4;
  await rig.admin('policy.apply', { files: staffPolicy });
  t.context.rig = rig;
});

test.after.always('stop', async (t) => {
  await (t.context.rig as Rig | undefined)?.stop();
});

const newKey = (): KeyObject => generateKeyPairSync('ed25519').privateKey;
const publicOf = (key: KeyObject): string => rawPublicKey(key).toString('base64url');

/** A machine of a service, enrolled and not signed in. */
async function machineOf(rig: Rig, name: string): Promise<DevicePeer> {
  const { code } = await rig.admin<{ code: string }>('invite.service', {
    name,
    ttlMs: 60_000,
    uses: 1,
  });
  const { identity, answer } = await enrol({
    code: parseEnrolmentCode(code),
    hostname: 'runner',
    platform: 'linux',
    password: null,
    expectRole: 'device',
  });
  if (answer.role !== 'device' || answer.signedIn) throw new Error('signed in by enrolment');
  return rig.connectDevice(identity);
}

async function addService(rig: Rig, name: string, sessionMs = 3_600_000): Promise<KeyObject> {
  const key = newKey();
  const credential = { kind: 'key', publicKey: publicOf(key), sessionMs };
  await rig.admin('service.add', { name, groups: ['staff'], credential });
  return key;
}

async function nonceFor(device: DevicePeer): Promise<string> {
  const answer = await device.channel.request({ type: 'service_challenge' });
  if (answer.type !== 'service_nonce') throw new Error(answer.type);
  return answer.nonce;
}

function signIn(device: DevicePeer, service: string, key: KeyObject, claim: object) {
  const full = { service, device: device.identity.id as DeviceId, nonce: '', ...claim };
  const statement = signStatement('service', serviceProofSchema, full, signingKey(key));
  const proof = { kind: 'key', statement } as const;
  return device.channel.request({ type: 'service_sign_in', service, proof });
}

async function lastRefusal(rig: Rig): Promise<unknown> {
  await rig.settled();
  const rows = await rig.plane.services.audit.read();
  const row = rows.filter((one) => one.action === 'session.sign_in').at(-1);
  return (JSON.parse(row?.detailsJson ?? '{}') as { reason: unknown }).reason;
}

test.serial('service - signs in with a key of its own, for the time that is set', async (t) => {
  const { rig } = t.context;
  const key = await addService(rig, 'builds', 600_000);
  const device = await machineOf(rig, 'builds');
  const answer = await signIn(device, 'builds', key, { nonce: await nonceFor(device) });
  if (answer.type !== 'signed_in') throw new Error(answer.type);
  const { session } = answer;
  t.like(session, { user: 'builds', methods: ['key'] });
  const lifeMs = session.untilMs - session.signedInAtMs;
  t.true(lifeMs >= 600_000 && lifeMs < 660_000, String(lifeMs));
  const apps = await device.channel.request({ type: 'apps' });
  t.is(apps.type, 'apps');
  const shown = await rig.admin<{ credentials: { lastUsedAtMs: unknown }[] }>('service.show', {
    name: 'builds',
  });
  t.is(typeof shown.credentials[0]?.lastUsedAtMs, 'number');
});

test.serial('service - every other proof is refused, each with its own reason', async (t) => {
  const { rig } = t.context;
  const key = await addService(rig, 'nightly');
  await addService(rig, 'other');
  const device = await machineOf(rig, 'nightly');
  const elsewhere = await machineOf(rig, 'nightly');
  const person = await rig.device('alice');
  const used = await nonceFor(device);
  await signIn(device, 'nightly', key, { nonce: used });

  const attempts: readonly (readonly [string, DevicePeer, string, KeyObject, object])[] = [
    ['service_nonce_wrong', device, 'nightly', key, { nonce: used }],
    [
      'service_nonce_wrong',
      device,
      'nightly',
      key,
      { nonce: randomBytes(32).toString('base64url') },
    ],
    ['service_nonce_wrong', device, 'nightly', key, { nonce: await nonceFor(elsewhere) }],
    ['service_key_unknown', device, 'nightly', newKey(), { nonce: used }],
    ['service_proof_other', device, 'nightly', key, { nonce: used, device: elsewhere.identity.id }],
    ['service_proof_other', device, 'nightly', key, { nonce: used, service: 'other' }],
    ['device_not_of_user', device, 'other', key, { nonce: used }],
    ['service_unknown', person, 'alice', key, { nonce: used }],
  ];
  for (const [reason, peer, service, by, claim] of attempts) {
    await nonceFor(device); // there is one, and it is another
    const error = await t.throwsAsync(
      signIn(peer, service, by, { nonce: used, ...claim }),
      undefined,
      reason,
    );
    t.like(error, { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' }, reason);
    t.is(await lastRefusal(rig), reason);
  }
});

test.serial('service - a key that is distrusted ends its sessions and opens none', async (t) => {
  const { rig } = t.context;
  const key = await addService(rig, 'deploy');
  const device = await machineOf(rig, 'deploy');
  await signIn(device, 'deploy', key, { nonce: await nonceFor(device) });
  const next = newKey();
  await rig.admin('service.trust', {
    name: 'deploy',
    credential: { kind: 'key', publicKey: publicOf(next) },
  });
  const { credentials } = await rig.admin<{ credentials: { id: string; publicKey: string }[] }>(
    'service.show',
    { name: 'deploy' },
  );
  const old = credentials.find(({ publicKey }) => publicKey === publicOf(key));
  await rig.admin('service.distrust', { name: 'deploy', id: old?.id });
  await device.find((message) => (message.type === 'session_ended' ? true : undefined));
  const refused = await t.throwsAsync(
    signIn(device, 'deploy', key, { nonce: await nonceFor(device) }),
  );
  t.like(refused, { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' });
  const answer = await signIn(device, 'deploy', next, { nonce: await nonceFor(device) });
  t.is(answer.type, 'signed_in');
  await rig.admin('user.disable', { name: 'deploy' });
  await t.throwsAsync(signIn(device, 'deploy', next, { nonce: await nonceFor(device) }));
  t.is(await lastRefusal(rig), 'user_not_active');
});

test.serial('service - has no password, neither by enrolment nor by command', async (t) => {
  const { rig } = t.context;
  await addService(rig, 'robot');
  const device = await machineOf(rig, 'robot');
  const refused = await t.throwsAsync(
    rig.admin('user.set', { name: 'robot', password: 'a-password-that-is-long' }),
  );
  t.regex(refused.message, /has no password/);
  const password = 'correct-horse-of-a-test';
  const request = { type: 'sign_in', user: 'robot', password, otp: null } as const;
  t.like(await t.throwsAsync(device.channel.request(request)), {
    code: 'ERR_IDENTITY_SIGN_IN_REFUSED',
  });
});

test.serial(
  'service - a machine that was not seen for a week makes room for another',
  async (t) => {
    const { rig } = t.context;
    await addService(rig, 'jobs');
    const gone = await machineOf(rig, 'jobs');
    const kept = await machineOf(rig, 'jobs');
    const { store, clock } = rig.plane.services;
    const longAgoMs = clock.nowMs() - 8 * 86_400_000;
    await store.write((tx) =>
      tx
        .updateTable('devices')
        .set({ createdAtMs: longAgoMs, lastSeenAtMs: longAgoMs })
        .where('id', '=', gone.identity.id as DeviceId)
        .execute(),
    );
    await machineOf(rig, 'jobs');
    const stateOf = async ({ identity }: DevicePeer) =>
      (await rig.admin<{ state: string }>('device.show', { id: identity.id })).state;
    t.is(await stateOf(gone), 'revoked');
    t.is(await stateOf(kept), 'enrolled');
  },
);

test.serial(
  'service - policy tells it from people, and keeps it from what asks for more',
  async (t) => {
    const { rig } = t.context;
    const only = (id: string, app: string, condition: string) =>
      `@id("${id}") permit (principal in Group::"staff", action == Action::"connect", resource == App::"${app}") when { ${condition} };`;
    const auth = 'context.authentication';
    await rig.connector('berlin', ['wiki', 'vault']);
    const byKey = `${auth}.provider == "service" && ${auth}.methods.contains("key")`;
    const files = {
      'wiki.cedar': only('wiki', 'wiki', byKey),
      'vault.cedar': only('vault', 'vault', `${auth}.mfa || ${auth}.phishing_resistant`),
    };
    await rig.admin('policy.apply', { files });
    const key = await addService(rig, 'reader');
    const device = await machineOf(rig, 'reader');
    await signIn(device, 'reader', key, { nonce: await nonceFor(device) });
    const person = await rig.device('carla');
    const isAllowed = async (peer: DevicePeer, app: string) => {
      const answer = await peer.channel.request({ type: 'why', app });
      if (answer.type !== 'why') throw new Error(answer.type);
      return answer.allowed;
    };
    t.true(await isAllowed(device, 'wiki'));
    t.false(await isAllowed(device, 'vault'));
    t.false(await isAllowed(person, 'wiki'));
  },
);
