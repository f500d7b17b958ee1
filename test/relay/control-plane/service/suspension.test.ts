import { generateKeyPairSync, randomBytes, type KeyObject } from 'node:crypto';
import anyTest, { type TestFn } from 'ava';
import {
  cutReceiptSchema,
  grantSchema,
  newId,
  postureStatementSchema,
  rawPublicKey,
  signingKey,
  signStatement,
  verifyStatement,
  ZtnaError,
  type CutReceipt,
  type Grant,
  type PostureCheck,
  type ToDevice,
} from '../../../../protocol/index.ts';
import { endOverdue } from '../../../../relay/control-plane/verification/overdue.ts';
import { password, Rig, type ConnectorPeer, type DevicePeer, type RelayPeer } from './rig.ts';

interface Context {
  rig: Rig;
  connector: ConnectorPeer;
  relay: RelayPeer;
  device: DevicePeer;
}
const test = anyTest as TestFn<Context>;

const policies = {
  'wiki.cedar':
    '@id("wiki") permit (principal in Group::"staff", action == Action::"connect", resource == App::"wiki") when { context.posture.disk_encryption == "on" };',
  'mail.cedar':
    '@id("mail") permit (principal in Group::"staff", action == Action::"connect", resource == App::"mail");',
};

test.beforeEach('a deployment whose parts speak version 3', async (t) => {
  const rig = await Rig.start({
    verification: { intervalMs: 20_000, holdMs: 60_000 },
    posture: { maxAgeMs: 45_000, checks: [] },
  });
  rig.version = 3;
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: policies });
  const identity = await rig.enrolConnector('berlin', ['wiki', 'mail']);
  t.context.connector = await rig.connectConnector(identity, ['wiki', 'mail']);
  t.context.relay = await rig.relay(t.context.connector);
  t.context.device = await rig.device('alice');
  await rig.untilRouted('mail', t.context.device);
});

test.afterEach.always('stop', async (t) => {
  await t.context.rig.stop();
});

type Result = PostureCheck[1];

async function wantedOf(
  device: DevicePeer,
): Promise<Extract<ToDevice, { type: 'posture_wanted' }>> {
  return device.find((message) => (message.type === 'posture_wanted' ? message : undefined));
}

interface Said {
  readonly sequence?: number;
  readonly nonce?: string;
  readonly atMs?: number;
  readonly device?: string;
  readonly checks?: readonly PostureCheck[];
  readonly signer?: DevicePeer;
}

let sequence = 0;

const publicKeyOf = (key: KeyObject) => rawPublicKey(key).toString('base64url');

/** Says that disk encryption is so, as the device would. */
async function say({ rig, device }: Context, disk: Result, said: Said = {}): Promise<void> {
  const { nonce } = await wantedOf(device);
  const statement = signStatement(
    'posture',
    postureStatementSchema,
    {
      device: (said.device ?? device.identity.id) as never,
      nonce: said.nonce ?? nonce,
      sequence: said.sequence ?? sequence++,
      atMs: said.atMs ?? rig.plane.services.clock.nowMs(),
      facts: {
        platform: 'linux',
        osVersion: '12.4',
        clientVersion: '0.1.0',
        checks: [
          ...(said.checks ?? [['disk_encryption', disk, 'lsblk'] as const]),
        ] as PostureCheck[],
      },
    },
    signingKey((said.signer ?? device).identity.signingKey),
  );
  device.channel.send({ type: 'posture', statement });
}

async function refusalOf(promise: Promise<unknown>): Promise<ZtnaError> {
  const error: unknown = await promise.then(
    () => new Error('granted'),
    (reason: unknown) => reason,
  );
  if (!(error instanceof ZtnaError)) throw error as Error;
  return error;
}

async function askPath(device: DevicePeer, tunnel: Grant['tunnel'] | null): Promise<Grant> {
  const permit = await device.channel.request({ type: 'path', app: 'wiki', tunnel, avoid: [] });
  if (permit.type !== 'path_permit') throw new Error('no permit');
  return verifyStatement('grant', grantSchema, permit.grant, device.identity.bundle.grantKeys);
}

async function openTunnel(context: Context): Promise<Grant> {
  const { device, connector, rig } = context;
  await say(context, 'on');
  const grant = await askPath(device, null);
  connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
  await untilState(rig, grant.tunnel, 'open');
  return grant;
}

async function untilState(rig: Rig, tunnel: string, state: string): Promise<void> {
  while ((await rig.admin('tunnel.show', { id: tunnel }))['state'] !== state) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const untilSuspended = (device: DevicePeer) =>
  device.find((message) => (message.type === 'tunnel_suspended' ? message : undefined));

test.serial('posture - is asked for on every channel, over a nonce of its own', async (t) => {
  const { rig, device } = t.context;
  const wanted = await wantedOf(device);
  t.like(wanted, { everyMs: 15_000, maxAgeMs: 45_000, checks: [] });
  const second = await rig.connectDevice(device.identity);
  t.not((await wantedOf(second)).nonce, wanted.nonce);
});

test.serial('posture - what policy needs is refused until it is said, with the fix', async (t) => {
  const { device } = t.context;
  const silent = await refusalOf(askPath(device, null));
  t.is(silent.code, 'ERR_POSTURE_UNHEALTHY');
  t.is(silent.message, 'wiki: nothing recent is known of this device');
  t.regex(silent.hint ?? '', /the device has not reported yet: is ztna running/);
  await say(t.context, 'unknown');
  t.is((await refusalOf(askPath(device, null))).message, 'wiki: disk encryption is unknown');
  await say(t.context, 'off');
  const off = await refusalOf(askPath(device, null));
  t.is(off.message, 'wiki: disk encryption is off');
  t.regex(off.hint ?? '', /turn on disk encryption; see: ztna posture/);
  await say(t.context, 'on');
  await t.notThrowsAsync(askPath(device, null));
});

test.serial(
  'posture - statements of another channel, device, key, time or order count for nothing and are put on record',
  async (t) => {
    const { rig, device } = t.context;
    const other = await rig.device('bob');
    const nowMs = rig.plane.services.clock.nowMs();
    const stranger = (await wantedOf(other)).nonce;
    const cases: [Said, string | null][] = [
      [{ nonce: stranger }, 'nonce_other'],
      [{ nonce: randomBytes(16).toString('base64url') }, 'nonce_other'],
      [{ device: other.identity.id }, 'device_other'],
      [{ signer: other }, null],
      [{ atMs: nowMs + 600_000 }, 'posture_ahead'],
      [{ checks: [['disk_encryption', 'on', 'x'.repeat(100)]], atMs: nowMs - 45_000 }, 'too_old'],
    ];
    for (const [said] of cases) await say(t.context, 'on', said);
    t.is((await refusalOf(askPath(device, null))).code, 'ERR_POSTURE_UNHEALTHY');
    await say(t.context, 'off', { sequence: 1_000 });
    await say(t.context, 'on', { sequence: 1_000 });
    await say(t.context, 'on', { sequence: 999 });
    t.is((await refusalOf(askPath(device, null))).message, 'wiki: disk encryption is off');
    await rig.settled();
    const refused = (await rig.plane.services.audit.read())
      .filter(({ action }) => action === 'posture.refuse')
      .map(({ detailsJson }) => (JSON.parse(detailsJson) as { reason: unknown }).reason);
    const wanted = cases.map(([, reason]) => reason).filter((reason) => reason !== 'too_old');
    t.deepEqual(refused, [...wanted, 'sequence_old', 'sequence_old']);
  },
);

test.serial('posture - a check that is told twice, or as nobody asked, is not known', async (t) => {
  const { device } = t.context;
  await say(t.context, 'on', {
    checks: [
      ['disk_encryption', 'off', 'a'],
      ['disk_encryption', 'on', 'b'],
      ['os_version', 'on', 'c'],
      ['nobody_asked', 'on', 'd'],
    ],
  });
  t.is((await refusalOf(askPath(device, null))).message, 'wiki: disk encryption is unknown');
});

test.serial(
  'suspension - posture that slips holds the tunnel back at once, and mended it goes on',
  async (t) => {
    const { rig, device, connector, relay } = t.context;
    const grant = await openTunnel(t.context);
    await say(t.context, 'off');
    const told = await untilSuspended(device);
    t.like(told, { tunnel: grant.tunnel, reason: 'posture_unhealthy' });
    t.regex(told.fix, /turn on disk encryption/);
    const head = await rig.plane.services.revocations.head(rig.plane.services.store.db);
    for (const enforcer of [connector, relay]) {
      await enforcer.completeTo(head.position);
      t.like(enforcer.entries().at(-1), {
        action: 'suspend',
        reason: 'posture_unhealthy',
        subject: { kind: 'tunnel', id: grant.tunnel },
      });
    }
    t.like(await rig.admin('tunnel.show', { id: grant.tunnel }), { state: 'detached' });
    const refused = await refusalOf(askPath(device, grant.tunnel));
    t.is(refused.code, 'ERR_TUNNEL_SUSPENDED');
    t.is(refused.reason ?? refused.hint, refused.reason ?? told.fix);

    await say(t.context, 'on');
    await device.find((message) => (message.type === 'tunnel_ready' ? message : undefined));
    const next = await askPath(device, grant.tunnel);
    t.is(next.generation, 2);
    t.true(next.position >= head.position);
    const { generation } = next;
    connector.channel.send({ type: 'tunnel_resumed', tunnel: grant.tunnel, generation });
    await untilState(rig, grant.tunnel, 'open');
    const actions = (await rig.plane.services.audit.read())
      .filter(({ subject }) => subject === grant.tunnel)
      .map(({ action }) => action);
    t.deepEqual(actions, ['tunnel.open', 'tunnel.suspend', 'tunnel.resume']);
  },
);

test.serial(
  'suspension - a device that falls silent is suspended when its posture is too old',
  async (t) => {
    const { rig } = t.context;
    await rig.plane.stop();
    rig.settings = { ...rig.settings, posture: { maxAgeMs: 2_000, checks: [] } };
    await rig.startPlane();
    const connector = await rig.connectConnector(t.context.connector.identity, ['wiki', 'mail']);
    const relay = await rig.relay(connector);
    const device = await rig.connectDevice(t.context.device.identity);
    await rig.untilRouted('mail', device);
    const grant = await openTunnel({ rig, connector, relay, device });
    // No lease outlasts the posture that it rests on.
    t.true(grant.untilMs <= rig.plane.services.clock.nowMs() + 2_000);
    const told = await untilSuspended(device);
    t.like(told, { tunnel: grant.tunnel, reason: 'posture_stale' });
    t.regex(told.fix, /^the device has not reported for \d+ s: is ztna running/);
    t.true(rig.plane.services.clock.nowMs() >= grant.untilMs);
    // It speaks again, and is not well: its user is told what to mend in place of the silence.
    await say({ rig, connector, relay, device }, 'off');
    const unwell = await device.find((message) =>
      message.type === 'tunnel_suspended' && message.reason !== told.reason ? message : undefined,
    );
    t.is(unwell.reason, 'posture_unhealthy');
    t.regex(unwell.fix, /turn on disk encryption/);
  },
);

test.serial('suspension - what nobody mends in time ends', async (t) => {
  const { rig, device } = t.context;
  const grant = await openTunnel(t.context);
  await say(t.context, 'off');
  const { untilMs } = await untilSuspended(device);
  await endOverdue(rig.plane.services, untilMs + 10_000);
  t.like(await rig.admin('tunnel.show', { id: grant.tunnel }), {
    state: 'closed',
    closeReason: 'suspension_over',
  });
  const ended = await device.find((message) =>
    message.type === 'tunnel_ended' ? message : undefined,
  );
  t.is(ended.code, 'ERR_POSTURE_UNHEALTHY');
  await say(t.context, 'on');
  t.is((await refusalOf(askPath(device, grant.tunnel))).code, 'ERR_TUNNEL_RESUME_REFUSED');
});

test.serial(
  "suspension - an administrator's word closes what is suspended, and for good",
  async (t) => {
    const { rig, device } = t.context;
    const grant = await openTunnel(t.context);
    await say(t.context, 'off');
    await untilSuspended(device);
    await rig.admin('revoke', { kind: 'device', id: device.identity.id, reason: 'stolen' });
    t.like(await rig.admin('tunnel.show', { id: grant.tunnel }), { state: 'closed' });
  },
);

test.serial('suspension - what policy denies whatever the device says ends', async (t) => {
  const { rig, device } = t.context;
  const grant = await openTunnel(t.context);
  await rig.admin('policy.apply', { files: { 'mail.cedar': policies['mail.cedar'] } });
  const ended = await device.find((message) =>
    message.type === 'tunnel_ended' ? message : undefined,
  );
  t.like(ended, { tunnel: grant.tunnel, code: 'ERR_TUNNEL_REVOKED', reason: 'policy_changed' });
});

test.serial(
  'suspension - a new sign-in takes the tunnels of the session before with it',
  async (t) => {
    const { device } = t.context;
    const grant = await openTunnel(t.context);
    await device.channel.request({ type: 'sign_in', user: 'alice', password, otp: null });
    const told = await untilSuspended(device);
    t.is(told.reason, 'signed_in_again');
    await device.find((message) => (message.type === 'tunnel_ready' ? message : undefined));
    const next = await askPath(device, grant.tunnel);
    t.is(next.generation, 2);
    t.not(next.session, grant.session);
  },
);

test.serial(
  'receipts - what enforcers sign about a cut is put on record and measured, and nothing else is',
  async (t) => {
    const { rig, device, connector, relay } = t.context;
    const grant = await openTunnel(t.context);
    await say(t.context, 'off');
    await untilSuspended(device);
    const { services } = rig.plane;
    const head = await services.revocations.head(services.store.db);
    const receipt = {
      by: connector.identity.id as never,
      tunnel: grant.tunnel,
      generation: 1,
      action: 'suspend',
      reason: 'posture_unhealthy',
      ...head,
      cutAtMs: services.clock.nowMs(),
      lastByteAtMs: services.clock.nowMs(),
      bytesUp: 1,
      bytesDown: 2,
    } as const;
    const sign = (value: CutReceipt, key: KeyObject) =>
      signStatement('receipt', cutReceiptSchema, value, signingKey(key));
    const ours = sign(receipt, connector.identity.signingKey);
    connector.channel.send({ type: 'receipt', statement: ours });
    const pair = generateKeyPairSync('ed25519');
    const key = rawPublicKey(pair.publicKey).toString('base64url');
    relay.channel.send({ type: 'receipt_key', key });
    const ofRelay = { ...receipt, by: relay.identity.id as never, bytesUp: 30 };
    relay.channel.send({ type: 'receipt', statement: sign(ofRelay, pair.privateKey) });
    const cuts = async () => {
      const records = await services.audit.read();
      return records.filter(({ action }) => action === 'tunnel.cut');
    };
    while ((await cuts()).length < 2) await new Promise((resolve) => setTimeout(resolve, 20));
    t.like(await rig.admin('audit.verify'), { isIntact: true });
    const [first] = await cuts();
    t.is((JSON.parse(first?.detailsJson ?? '{}') as { receipt: unknown }).receipt, ours);
    t.deepEqual(
      services.receipts.seconds
        .rows()
        .filter(({ suffix }) => suffix === '_count')
        .map(({ labels, value }) => [labels['trigger'], labels['by'], value]),
      [
        ['posture', 'connector', 1],
        ['posture', 'relay', 1],
      ],
    );
    for (const forged of [
      sign(receipt, pair.privateKey),
      sign({ ...receipt, by: newId('connector') }, connector.identity.signingKey),
    ]) {
      t.throws(
        () => {
          services.receipts.take(receipt.by, publicKeyOf(connector.identity.signingKey), forged);
        },
        { code: 'ERR_STATEMENT_REFUSED' },
      );
    }
  },
);

test.serial('posture - is kept over a restart of the control plane', async (t) => {
  const { rig, device } = t.context;
  await say(t.context, 'on');
  await askPath(device, null);
  await rig.plane.services.postures.keep();
  const { postures, store, clock } = rig.plane.services;
  const heard = await postures.read(store.db, device.identity.id as never, clock.nowMs());
  await rig.plane.stop();
  await rig.startPlane();
  const again = rig.plane.services;
  t.deepEqual(
    await again.postures.read(again.store.db, device.identity.id as never, again.clock.nowMs()),
    heard,
  );
});

test.serial('posture_needs - tells what the apps of the user need of the device', async (t) => {
  const { device } = t.context;
  const ask = () => device.channel.request({ type: 'posture_needs' });
  t.like(await ask(), {
    heardAgoMs: null,
    needs: [
      {
        app: 'wiki',
        what: 'posture.disk_encryption',
        actual: 'unknown',
        required: 'on',
        met: false,
      },
    ],
  });
  await say(t.context, 'on');
  t.like(await ask(), {
    needs: [
      { app: 'wiki', what: 'posture.disk_encryption', actual: 'on', required: 'on', met: true },
    ],
  });
});
