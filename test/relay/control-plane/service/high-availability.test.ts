import { setImmediate } from 'node:timers/promises';
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import {
  grantSchema,
  verifyStatement,
  type FromConnector,
  type RelayId,
  type TunnelId,
} from '../../../../protocol/index.ts';
import { healthMetrics } from '../../../../relay/control-plane/health/metrics.ts';
import { formatMetrics } from '../../../../relay/health-server.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer, type RelayPeer } from './rig.ts';

interface Context {
  rig: Rig;
  left: ConnectorPeer;
  right: ConnectorPeer;
  relay: RelayPeer;
  device: DevicePeer;
}
const test = anyTest as TestFn<Context>;

test.beforeEach('a site with two connectors', async (t) => {
  const rig = await Rig.start();
  rig.version = 2;
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: staffPolicy });
  const left = await rig.connector('berlin', ['wiki', 'shop']);
  const { code } = await rig.admin<{ code: string }>('invite.connector', {
    name: 'berlin-2',
    site: 'berlin',
    ttlMs: 60_000,
    uses: 1,
  });
  const right = await rig.connectConnector(await rig.enrolConnectorWith(code), ['wiki', 'shop']);
  const relay = await rig.relay(left, right);
  const device = await rig.device('alice');
  await rig.untilRouted('wiki', device);
  Object.assign(t.context, { left, right, relay, device });
});

test.afterEach.always('stop', async (t) => {
  await t.context.rig.stop();
});

const idOf = (peer: ConnectorPeer): string => peer.identity.id;

/** Whom the next grant for `app` names. */
async function chosen({ context }: ExecutionContext<Context>, app = 'wiki'): Promise<string> {
  const { device } = context;
  const permit = await device.channel.request({ type: 'grant', app });
  if (permit.type !== 'permit') throw new Error('no permit');
  return verifyStatement('grant', grantSchema, permit.grant, device.identity.bundle.grantKeys)
    .connector;
}

/** Says something and waits until it was taken in: a channel's messages are handled in order. */
async function say(
  t: ExecutionContext<Context>,
  peer: ConnectorPeer,
  message: FromConnector,
  isTaken: (row: Record<string, unknown>) => boolean,
): Promise<void> {
  peer.channel.send(message);
  for (;;) {
    const row = await t.context.rig.admin('connector.show', { id: idOf(peer) });
    if (isTaken(row)) return;
    await setImmediate(); // the store answers without leaving this turn
  }
}

/** Says that the app is down, or up, there; one that was never down is said to be down first. */
async function tellHealth(
  t: ExecutionContext<Context>,
  peer: ConnectorPeer,
  isHealthy: boolean,
  app = 'wiki',
): Promise<void> {
  const unhealthy = (row: Record<string, unknown>) => (row['unhealthy'] as string[]).includes(app);
  if (isHealthy) await say(t, peer, { type: 'app_health', apps: [[app, false]] }, unhealthy);
  await say(
    t,
    peer,
    { type: 'app_health', apps: [[app, isHealthy]] },
    (row) => unhealthy(row) !== isHealthy,
  );
}

test('choice - two connectors of a site share the tunnels evenly', async (t) => {
  const { left, right } = t.context;
  const counts = new Map([
    [idOf(left), 0],
    [idOf(right), 0],
  ]);
  for (let i = 0; i < 10; i++) {
    const id = await chosen(t);
    counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  t.deepEqual([...counts.values()], [5, 5]);
});

test('choice - a connector where the app is down is passed over, for that app alone', async (t) => {
  const { left, right } = t.context;
  await tellHealth(t, left, false);
  for (let i = 0; i < 4; i++) t.is(await chosen(t), idOf(right));
  t.is(await chosen(t, 'shop'), idOf(left));
  await tellHealth(t, left, true);
  t.is(await chosen(t), idOf(left));
});

test('choice - an app that is down everywhere is shown offline and tried all the same', async (t) => {
  const { left, right, device, rig } = t.context;
  const state = async () => {
    const answer = await device.channel.request({ type: 'apps' });
    return answer.type === 'apps' && answer.apps.find(({ name }) => name === 'wiki')?.state;
  };
  await tellHealth(t, left, false);
  t.is(await state(), 'online');
  await tellHealth(t, right, false);
  t.is(await state(), 'offline');
  const shown = await rig.admin('app.show', { name: 'wiki' });
  t.like(shown, { online: false, healthy: [] });
  t.is((shown['connectors'] as string[]).length, 2);
  t.true([idOf(left), idOf(right)].includes(await chosen(t)));
});

test('choice - of two that carry as much the nearer one is taken', async (t) => {
  const { left, right, relay } = t.context;
  const tell = (peer: ConnectorPeer, ms: number) => {
    peer.channel.send({ type: 'round_trips', relays: [[relay.identity.id as RelayId, ms]] });
    return tellHealth(t, peer, true, 'shop');
  };
  await tell(left, 180);
  await tell(right, 20);
  for (let i = 0; i < 3; i++) {
    t.is(await chosen(t), idOf(right));
    t.is(await chosen(t), idOf(left), 'the load counts first');
  }
});

test('choice - a connector that stops gets nothing new', async (t) => {
  const { left, right, rig } = t.context;
  await say(t, left, { type: 'stopping' }, (row) => row['stopping'] === true);
  for (let i = 0; i < 3; i++) t.is(await chosen(t), idOf(right));
  await say(t, right, { type: 'stopping' }, (row) => row['stopping'] === true);
  await t.throwsAsync(chosen(t), { code: 'ERR_CONNECTOR_OFFLINE' });
  t.like(await rig.admin('app.show', { name: 'wiki' }), { online: false, connectors: [] });
});

test('stopping - the agents with a tunnel there are told, those that do not know the word are not', async (t) => {
  const { left, right, rig, device } = t.context;
  const ids = new Map<string, string>();
  for (let i = 0; i < 2; i++) {
    const permit = await device.channel.request({ type: 'grant', app: 'wiki' });
    if (permit.type !== 'permit') throw new Error('no permit');
    const { grantKeys } = device.identity.bundle;
    const { connector, tunnel } = verifyStatement('grant', grantSchema, permit.grant, grantKeys);
    ids.set(connector, tunnel);
  }
  const [gone, kept] = [ids.get(idOf(left)), ids.get(idOf(right))] as [TunnelId, TunnelId];
  for (const [peer, tunnel] of [
    [left, gone],
    [right, kept],
  ] as const) {
    peer.channel.send({ type: 'tunnel_opened', tunnel });
  }
  left.channel.send({ type: 'stopping' });
  const told = await device.find((m) => (m.type === 'tunnel_draining' ? m.tunnel : undefined));
  t.is(told, gone);
  // An agent that was away meanwhile hears it when it is back.
  device.channel.close();
  await device.channel.closed;
  const back = await rig.connectDevice(device.identity, [gone, kept]);
  t.is(await back.find((m) => (m.type === 'tunnel_draining' ? m.tunnel : undefined)), gone);
  rig.version = 1;
  const old = await rig.connectDevice(device.identity, [gone, kept]);
  await old.channel.request({ type: 'apps' });
  t.false(old.messages.some(({ type }) => type === 'tunnel_draining'));
});

test('metrics - count the connectors of each app, and those where it is well', async (t) => {
  await tellHealth(t, t.context.left, false);
  const { services } = t.context.rig.plane;
  const text = formatMetrics(await healthMetrics(services));
  t.regex(text, /^ztna_app_connectors\{app="wiki"\} 2$/m);
  t.regex(text, /^ztna_app_connectors_healthy\{app="wiki"\} 1$/m);
  t.regex(text, /^ztna_app_connectors_healthy\{app="shop"\} 2$/m);
});

test('metrics - of a whole relay are those of its data plane, too, while there is one', async (t) => {
  const { services } = t.context.rig.plane;
  const dataPlane = /^ztna_data_plane_tunnels 7$/m;
  services.dataPlaneCounts = { connections: 9, tunnels: 7, connectors: 2, controlPlanes: 1 };
  t.regex(formatMetrics(await healthMetrics(services)), dataPlane);
  services.dataPlaneCounts = null;
  t.notRegex(formatMetrics(await healthMetrics(services)), dataPlane);
});

test('hello - a process that was away while a newer one came stays out, also after a restart', async (t) => {
  const { rig } = t.context;
  const identity = await rig.enrolConnector('milan', ['desk']);
  const first = await rig.connectConnector(identity, ['desk']);
  first.channel.close();
  await first.channel.closed;
  const newer = await rig.connectConnector(identity, ['desk']);
  const back = () => rig.connectConnector(identity, ['desk'], { instance: first.instance });
  await t.throwsAsync(back(), { code: 'ERR_CONNECTOR_REPLACED' });
  await rig.plane.stop();
  await rig.startPlane();
  await t.throwsAsync(back(), { code: 'ERR_CONNECTOR_REPLACED' });
  await t.notThrowsAsync(rig.connectConnector(identity, ['desk'], { instance: newer.instance }));
});
