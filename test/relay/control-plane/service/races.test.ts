import { setTimeout as delay } from 'node:timers/promises';
import anyTest, { type TestFn } from 'ava';
import {
  channelPath,
  controlProtocol,
  grantSchema,
  verifyStatement,
  ZtnaError,
  type Grant,
} from '../../../../protocol/index.ts';
import { dialWebSocket, type Identity } from '../../../../protocol/host/index.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer } from './rig.ts';

interface Context {
  rig: Rig;
  identity: Identity;
  connector: ConnectorPeer;
}
const test = anyTest as TestFn<Context>;

/** Denies `wiki` to everybody. */
const mailPolicy = {
  'mail.cedar':
    '@id("mail") permit (principal in Group::"staff", action == Action::"connect", resource == App::"mail");',
};
const apps = ['wiki', 'mail'];

test.beforeEach('a deployment with one connector', async (t) => {
  const rig = await Rig.start();
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: staffPolicy });
  t.context.identity = await rig.enrolConnector('berlin', apps);
  t.context.connector = await rig.connectConnector(t.context.identity, apps);
  await rig.relay(t.context.connector);
});

test.afterEach.always('stop', async (t) => {
  await t.context.rig.stop();
});

async function grantOf(device: DevicePeer, app: string): Promise<Grant> {
  const permit = await device.channel.request({ type: 'grant', app });
  if (permit.type !== 'permit') throw new Error('no permit');
  return verifyStatement('grant', grantSchema, permit.grant, device.identity.bundle.grantKeys);
}

async function outcomeOf(device: DevicePeer, app: string): Promise<string> {
  return grantOf(device, app).then(
    () => 'granted',
    (error: unknown) => (error instanceof ZtnaError ? error.code : String(error)),
  );
}

/** Keeps every later transaction waiting until the answer is called. */
function holdStore({ plane }: Rig): () => Promise<void> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const held = plane.services.store.write(() => promise);
  return async () => {
    resolve(undefined);
    await held;
  };
}

/** Waits until so many policy commands have checked their files and wait for the store. */
async function untilChecked(work: Promise<unknown>): Promise<void> {
  await Promise.race([work, delay(1_500)]);
}

test.serial(
  'policy apply - a dry run that waited behind another policy does not bring the old one back',
  async (t) => {
    const { rig } = t.context;
    const device = await rig.device('alice');
    await rig.untilRouted('wiki', device);
    const release = holdStore(rig);
    const applied = rig.admin('policy.apply', { files: mailPolicy });
    await untilChecked(applied);
    const dryRun = rig.admin('policy.apply', { files: staffPolicy, dryRun: true });
    await untilChecked(dryRun);
    await release();
    await Promise.all([applied, dryRun]);
    t.is(await outcomeOf(device, 'wiki'), 'ERR_POLICY_DENIED');
    const { version } = await rig.admin<{ version: number }>('policy.show');
    t.is(rig.plane.services.policy.version, version);
  },
);

test.serial(
  'policy apply - a dry run changes nothing that later records are made of',
  async (t) => {
    const { rig, connector } = t.context;
    const device = await rig.device('alice');
    await rig.untilRouted('wiki', device);
    const grant = await grantOf(device, 'wiki');
    connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
    const { services } = rig.plane;
    const { policy } = services;
    const dry = await rig.admin<{ tunnelsEnded: number }>('policy.apply', {
      files: mailPolicy,
      dryRun: true,
    });
    t.is(dry.tunnelsEnded, 1);
    t.is(services.policy, policy);
    t.is(services.tunnels.get(grant.tunnel)?.decision, grant.decision);
  },
);

test.serial(
  'hello - a connector that was away is told what voids a grant that was never used',
  async (t) => {
    const { rig, identity, connector } = t.context;
    const device = await rig.device('alice');
    await rig.untilRouted('wiki', device);
    const grant = await grantOf(device, 'wiki');
    connector.channel.close();
    await connector.channel.closed;
    await rig.admin('user.disable', { name: 'alice' });
    const { instance } = connector;
    const back = await rig.connectConnector(identity, apps, { instance });
    await back.completeTo(rig.plane.services.feed.head);
    t.deepEqual(
      back.entries().map((entry) => entry.subject),
      [{ kind: 'user', id: grant.user }],
    );
  },
);

test.serial('hello - so it is after a restart of the control plane', async (t) => {
  const { rig, identity, connector } = t.context;
  const device = await rig.device('alice');
  await rig.untilRouted('wiki', device);
  const grant = await grantOf(device, 'wiki');
  connector.channel.close();
  await connector.channel.closed;
  await rig.admin('user.disable', { name: 'alice' });
  await rig.plane.stop();
  await rig.startPlane();
  const { instance } = connector;
  const back = await rig.connectConnector(identity, apps, { instance });
  await back.completeTo(rig.plane.services.feed.head);
  t.deepEqual(
    back.entries().map((entry) => entry.subject),
    [{ kind: 'user', id: grant.user }],
  );
});

test.serial('hello - a peer that left before it was greeted leaves nothing behind', async (t) => {
  const { rig } = t.context;
  const device = await rig.device('alice');
  const { id } = device.identity;
  const { peers } = rig.plane.services;
  t.is(peers.devices(id).length, 1);
  const ws = await dialWebSocket({
    url: rig.url,
    alpn: controlProtocol,
    serverRole: 'control-plane',
    identity: device.identity,
    path: channelPath,
  });
  ws.on('message', () => undefined);
  const release = holdStore(rig);
  const versions = { min: 1, max: 1 };
  ws.send(
    JSON.stringify({ type: 'hello', versions, software: 'test', bundleVersion: 1, tunnels: [] }),
  );
  await delay(300); // it has arrived and waits for the store
  ws.terminate();
  await delay(300);
  await release();
  await device.channel.request({ type: 'status' }); // behind the greeting
  await delay(100);
  t.is(peers.devices(id).length, 1);
});

test.serial(
  'tunnel_opened - a grant that its agent gave up and used all the same ends at once, on record',
  async (t) => {
    const { rig, connector } = t.context;
    const device = await rig.device('alice');
    await rig.untilRouted('wiki', device);
    const grant = await grantOf(device, 'wiki');
    device.channel.send({ type: 'tunnel_closed', tunnel: grant.tunnel, reason: 'not_opened' });
    await device.channel.request({ type: 'status' }); // requests are answered in order
    connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
    await connector.completeTo(1);
    t.deepEqual(
      connector.entries().map((entry) => entry.subject),
      [{ kind: 'tunnel', id: grant.tunnel }],
    );
    const rows = await rig.admin<{ action: string; outcome: string; subject: string }[]>(
      'audit.tail',
      { limit: 50 },
    );
    const opened = rows.filter((row) => row.action === 'tunnel.open');
    t.deepEqual(
      opened.map(({ outcome, subject }) => [outcome, subject]),
      [['refused', grant.tunnel]],
    );
  },
);

test.serial('user remove - closes the channels of the devices that are gone', async (t) => {
  const { rig } = t.context;
  const device = await rig.device('alice');
  await rig.admin('user.remove', { name: 'alice' });
  const { code } = await device.channel.closed;
  t.is(code, 'ERR_IDENTITY_REVOKED');
});
