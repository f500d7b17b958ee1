import anyTest, { type TestFn } from 'ava';
import { grantSchema, verifyStatement, type Grant } from '../../../../protocol/index.ts';
import { RiskProfile, type RiskEvent } from '../../../../relay/control-plane/risk/index.ts';
import { Rig, type ConnectorPeer, type DevicePeer } from './rig.ts';

const test = anyTest as TestFn<{ rig: Rig; connector: ConnectorPeer; device: DevicePeer }>;

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const megabyte = 1_000_000;

const policies = {
  'calm.cedar':
    '@id("calm") permit (principal in Group::"staff", action == Action::"connect", resource) when { context.risk.score < 50 };',
};

test.beforeEach('a deployment in which somebody has habits', async (t) => {
  // No tick comes while the test lasts: what is seen to change has to have the tunnel verified.
  const rig = await Rig.start({ verification: { intervalMs: 3_600_000, holdMs: 60_000 } });
  rig.version = 3;
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: policies });
  const identity = await rig.enrolConnector('berlin', ['wiki']);
  const device = await giveHabits(rig, await rig.device('alice'));
  t.context.connector = await rig.connectConnector(identity, ['wiki']);
  await rig.relay(t.context.connector);
  t.context.device = device;
  await rig.untilRouted('wiki', device);
});

test.afterEach.always('stop', async (t) => {
  await t.context.rig.stop();
});

interface RiskTold {
  readonly score: number;
  readonly contributions: readonly { readonly name: string; readonly detail: string }[];
}

/** Ten megabytes of wiki an hour, around the clock for three weeks, from the address of the tests. */
async function giveHabits(rig: Rig, device: DevicePeer): Promise<DevicePeer> {
  const { store, clock } = rig.plane.services;
  const { id: user } = await store.db
    .selectFrom('users')
    .select('id')
    .where('name', '=', 'alice')
    .executeTakeFirstOrThrow();
  const profile = new RiskProfile();
  const nowMs = clock.nowMs();
  for (let atMs = nowMs - 21 * dayMs; atMs < nowMs - hourMs; atMs += hourMs) {
    const facts = {
      atMs,
      user,
      device: device.identity.id,
      app: 'wiki',
      address: '203.0.113.7',
      place: null,
    };
    const events: RiskEvent[] = [
      { ...facts, kind: 'sign_in', app: null },
      { ...facts, kind: 'connect' },
      { ...facts, kind: 'bytes', bytesOut: 10 * megabyte, spanMs: 60_000 },
    ];
    for (const event of events) profile.learn(event);
  }
  await rig.plane.stop();
  await rig.startPlane();
  const again = rig.plane.services.store;
  await again.write((tx) =>
    tx
      .insertInto('riskProfiles')
      .values({ userId: user, profileJson: profile.toJson(), updatedAtMs: nowMs })
      .onConflict((conflict) =>
        conflict.column('userId').doUpdateSet({ profileJson: profile.toJson() }),
      )
      .execute(),
  );
  return rig.connectDevice(device.identity);
}

async function openTunnel(rig: Rig, device: DevicePeer, connector: ConnectorPeer): Promise<Grant> {
  const permit = await device.channel.request({
    type: 'path',
    app: 'wiki',
    tunnel: null,
    avoid: [],
  });
  if (permit.type !== 'path_permit') throw new Error('no permit');
  const { grantKeys } = device.identity.bundle;
  const grant = verifyStatement('grant', grantSchema, permit.grant, grantKeys);
  connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
  while ((await rig.admin('tunnel.show', { id: grant.tunnel }))['state'] !== 'open') {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return grant;
}

test.serial(
  'risk - twenty times the usual bytes suspend the tunnel, and what it was is told',
  async (t) => {
    const { rig, connector, device } = t.context;
    const decided = await openTunnel(rig, device, connector);
    const { tunnel } = decided;
    // The one verification that its opening had: from here on none comes by itself.
    await device.find((message) => (message.type === 'leases' ? message : undefined));
    const count = (down: number) => {
      connector.channel.send({ type: 'byte_counts', tunnels: [[tunnel, 0, down]] });
    };
    count(5 * megabyte);
    count(210 * megabyte);
    const told = await device.find((message) =>
      message.type === 'tunnel_suspended' ? message : undefined,
    );
    t.like(told, { tunnel, reason: 'risk_high' });
    const decision = await rig.admin<{ inputs: { context: { risk: unknown } } }>('decision.show', {
      id: told.decision,
    });
    t.like(decision.inputs.context.risk, { factors: ['bytes_out'] });
    const [record] = (await rig.plane.services.audit.read()).filter(
      ({ action }) => action === 'tunnel.suspend',
    );
    const { risk } = JSON.parse(record?.detailsJson ?? '{}') as { risk: RiskTold };
    const session = await rig.admin<{ risk: RiskTold }>('session.show', { id: decided.session });
    for (const { score, contributions } of [risk, session.risk]) {
      t.true(score >= 50);
      t.like(contributions[0], { name: 'bytes_out' });
      t.regex(contributions[0]?.detail ?? '', /\d/);
    }
    await rig.plane.services.risk.keep();
    const row = await rig.plane.services.store.db
      .selectFrom('riskProfiles')
      .select('profileJson')
      .executeTakeFirstOrThrow();
    t.true(row.profileJson.includes('bytes_out'));
  },
);

test.serial(
  'risk - what is usual suspends nothing, and bytes from before a restart are not counted twice',
  async (t) => {
    const { rig, connector, device } = t.context;
    const { tunnel } = await openTunnel(rig, device, connector);
    connector.channel.send({ type: 'byte_counts', tunnels: [[tunnel, 0, 12 * megabyte]] });
    const live = rig.plane.services.tunnels.get(tunnel);
    if (!live) throw new Error('no tunnel');
    while (live.bytes.down === 0) await new Promise((resolve) => setTimeout(resolve, 10));
    // As after a start of the control plane: what its connector tells first is where counting begins.
    live.bytes = { up: 0, down: 0, atMs: 0 };
    connector.channel.send({ type: 'byte_counts', tunnels: [[tunnel, 0, 5_000 * megabyte]] });
    while (live.bytes.down < megabyte) await new Promise((resolve) => setTimeout(resolve, 10));
    await rig.plane.services.risk.keep();
    const facts = await rig.plane.services.risk.read(
      rig.plane.services.store.db,
      { user: live.user, device: live.device, session: live.session },
      rig.plane.services.clock.nowMs(),
    );
    t.true(facts('wiki').score < 50);
    t.is(live.state, 'open');
  },
);
