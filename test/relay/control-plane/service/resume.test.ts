import anyTest, { type TestFn } from 'ava';
import {
  grantSchema,
  leaseBatchSchema,
  newId,
  parseEnrolmentCode,
  verifyStatement,
  ZtnaError,
  type Grant,
  type RelayId,
  type ToDevice,
} from '../../../../protocol/index.ts';
import { enrol, type Identity } from '../../../../protocol/host/index.ts';
import { connectorAwayMs, maxDetachedPerDevice } from '../../../../relay/control-plane/limits.ts';
import { endOverdue } from '../../../../relay/control-plane/verification/overdue.ts';
import { verifyTunnels } from '../../../../relay/control-plane/verification/verifier.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer, type RelayPeer } from './rig.ts';

interface Context {
  rig: Rig;
  identity: Identity;
  connector: ConnectorPeer;
  relay: RelayPeer;
  device: DevicePeer;
}
const test = anyTest as TestFn<Context>;
const apps = ['wiki', 'mail'];

test.beforeEach('a deployment whose parts all speak version 2', async (t) => {
  const rig = await Rig.start({
    verification: { intervalMs: 20_000, holdMs: 60_000 },
    apps: { mail: { intervalMs: 1_000 } },
  });
  rig.version = 2;
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: staffPolicy });
  t.context.identity = await rig.enrolConnector('berlin', apps);
  t.context.connector = await rig.connectConnector(t.context.identity, apps);
  t.context.relay = await rig.relay(t.context.connector);
  t.context.device = await rig.device('alice');
  await rig.untilRouted('wiki', t.context.device);
});

test.afterEach.always('stop', async (t) => {
  await t.context.rig.stop();
});

type PathPermit = Extract<ToDevice, { type: 'path_permit' }>;

async function askPath(
  device: DevicePeer,
  tunnel: string | null,
  avoid: readonly RelayId[] = [],
  app = 'wiki',
): Promise<{ permit: PathPermit; grant: Grant }> {
  const permit = await device.channel.request({
    type: 'path',
    app,
    tunnel: tunnel as Grant['tunnel'] | null,
    avoid: [...avoid],
  });
  if (permit.type !== 'path_permit') throw new Error('no permit');
  const { grantKeys } = device.identity.bundle;
  return { permit, grant: verifyStatement('grant', grantSchema, permit.grant, grantKeys) };
}

async function refusalOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'granted',
    (error: unknown) => (error instanceof ZtnaError ? error.code : String(error)),
  );
}

/** A tunnel whose connector has reported it open. */
async function openTunnel({ device, connector, rig }: Context, app = 'wiki'): Promise<Grant> {
  const { grant } = await askPath(device, null, [], app);
  connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
  await untilState(rig, grant.tunnel, 'open');
  return grant;
}

async function detach(context: Context, { tunnel, generation }: Grant): Promise<void> {
  const { connector, rig } = context;
  connector.channel.send({ type: 'tunnel_detached', tunnel, generation, reason: 'path_lost' });
  await untilState(rig, tunnel, 'detached');
}

async function untilState(rig: Rig, tunnel: string, state: string): Promise<void> {
  while ((await rig.admin('tunnel.show', { id: tunnel }))['state'] !== state) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function actionsOf(rig: Rig, tunnel: string): Promise<string[]> {
  const records = await rig.plane.services.audit.read();
  return records.filter((row) => row.subject === tunnel).map((row) => row.action);
}

test.serial(
  'path - a new tunnel is granted as version 2 with how far its connector is from each relay',
  async (t) => {
    const { device, connector, relay, rig } = t.context;
    const { permit } = await askPath(device, null);
    const id = relay.identity.id as RelayId;
    t.deepEqual(permit.relays, [{ id, url: rig.url, connectorMs: null }]);
    connector.channel.send({ type: 'round_trips', relays: [[id, 7]] });
    const { grant } = await openTunnel(t.context).then((first) => askPath(device, first.tunnel));
    t.is(grant.version, 2);
    t.is(grant.holdMs, 60_000);
    // The only relay is named although it is to be avoided.
    const avoided = await askPath(device, null, [id]);
    t.deepEqual(avoided.permit.relays, [{ id, url: rig.url, connectorMs: 7 }]);
  },
);

test.serial(
  'path - a resume is a new decision, a higher generation and a higher lease of the same tunnel',
  async (t) => {
    const { device, rig } = t.context;
    const first = await openTunnel(t.context);
    await detach(t.context, first);
    const { grant } = await askPath(device, first.tunnel);
    for (const key of ['tunnel', 'user', 'device', 'app', 'connector', 'instance'] as const) {
      t.is(grant[key], first[key]);
    }
    t.is(grant.generation, 2);
    t.not(grant.decision, first.decision);
    t.not(grant.id, first.id);
    t.true(grant.sequence[1] > first.sequence[1]);
    const again = await askPath(device, first.tunnel);
    t.is(again.grant.generation, 3);
    t.is((await rig.admin('tunnel.show', { id: first.tunnel }))['state'], 'detached');
  },
);

test.serial(
  'reports - detached and resumed are states of the row, on record, and no lease is sent in between',
  async (t) => {
    const { device, connector, rig } = t.context;
    const first = await openTunnel(t.context, 'mail');
    const leases = () =>
      connector.messages.flatMap((message) =>
        message.type === 'leases'
          ? verifyStatement(
              'lease',
              leaseBatchSchema,
              message.statement,
              device.identity.bundle.grantKeys,
            ).entries.filter(([id]) => id === first.tunnel)
          : [],
      );
    await connector.find(() => (leases().length > 0 ? true : undefined));
    await detach(t.context, first);
    const before = leases().length;
    const { grant } = await askPath(device, first.tunnel, [], 'mail');
    await new Promise((resolve) => setTimeout(resolve, 2_500)); // twice the interval
    t.is(leases().length, before);
    const { tunnel } = first;
    connector.channel.send({ type: 'tunnel_resumed', tunnel, generation: grant.generation });
    await connector.find(() => (leases().length > before ? true : undefined));
    const shown = await rig.admin('tunnel.show', { id: tunnel });
    t.like(shown, { state: 'open', generation: 2, detachedAtMs: null });
    // A late word about the path that was replaced changes nothing.
    const late = { type: 'tunnel_detached', tunnel, generation: 1, reason: 'path_lost' } as const;
    connector.channel.send(late);
    // Nor does the same word again, as it is said behind each welcome.
    connector.channel.send({ type: 'tunnel_resumed', tunnel, generation: 2 });
    const relay = t.context.relay.identity.id as RelayId;
    connector.channel.send({ type: 'round_trips', relays: [[relay, 3]] }); // handled behind those
    const { peers } = rig.plane.services;
    await until(() =>
      Promise.resolve(peers.connectors.get(connector.identity.id)?.roundTrips.get(relay) === 3),
    );
    t.deepEqual(await actionsOf(rig, tunnel), ['tunnel.open', 'tunnel.detach', 'tunnel.resume']);
  },
);

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 10));
}

test.serial(
  'path - a revoked tunnel never resumes, also when that came while it was detached',
  async (t) => {
    const { device, connector, rig } = t.context;
    const tunnel = await openTunnel(t.context);
    await detach(t.context, tunnel);
    await rig.admin('revoke', { kind: 'tunnel', id: tunnel.tunnel, reason: 'test' });
    t.is(await refusalOf(askPath(device, tunnel.tunnel)), 'ERR_TUNNEL_REVOKED');
    await connector.completeTo(rig.plane.services.feed.head);
    t.true(connector.entries().some((entry) => entry.subject.id === tunnel.tunnel));
    const ended = await device.find((message) =>
      message.type === 'tunnel_ended' ? message : undefined,
    );
    t.like(ended, { tunnel: tunnel.tunnel, code: 'ERR_TUNNEL_REVOKED' });
  },
);

test.serial(
  'path - what policy has come to deny ends a detached tunnel, whatever its agent does',
  async (t) => {
    const { device, rig } = t.context;
    const tunnel = await openTunnel(t.context);
    await detach(t.context, tunnel);
    await rig.admin('group.member.remove', { group: 'staff', user: 'alice' });
    t.is((await rig.admin('tunnel.show', { id: tunnel.tunnel }))['state'], 'closed');
    t.is(await refusalOf(askPath(device, tunnel.tunnel)), 'ERR_TUNNEL_REVOKED');
  },
);

test.serial(
  'path - a resume against a revocation in the same moment leaves nothing that could be used',
  async (t) => {
    const { device, connector, relay, rig } = t.context;
    for (let round = 0; round < 8; round++) {
      const tunnel = await openTunnel(t.context);
      const revoke = () =>
        rig.admin('revoke', { kind: 'tunnel', id: tunnel.tunnel, reason: 'test' });
      const [asked] = await Promise.all(
        round % 2 === 0
          ? [askPath(device, tunnel.tunnel).catch((error: unknown) => error), revoke()]
          : [
              (async () => {
                const revoking = revoke();
                const outcome = await askPath(device, tunnel.tunnel).catch((e: unknown) => e);
                await revoking;
                return outcome;
              })(),
            ],
      );
      await Promise.all([connector, relay].map((p) => p.completeTo(rig.plane.services.feed.head)));
      const isNamed = (entry: { subject: { id: string } }) => entry.subject.id === tunnel.tunnel;
      const entry = connector.entries().find(isNamed);
      if (!entry) throw new Error('the connector was not told');
      t.true(relay.entries().some(isNamed));
      if (asked instanceof ZtnaError) t.is(asked.code, 'ERR_TUNNEL_REVOKED');
      else t.true((asked as { grant: Grant }).grant.position < entry.position);
      t.is((await rig.admin('tunnel.show', { id: tunnel.tunnel }))['state'], 'closed');
    }
  },
);

test.serial(
  'path - two resumes at once get two generations, of which the connector takes the higher',
  async (t) => {
    const { device } = t.context;
    const tunnel = await openTunnel(t.context);
    const both = await Promise.all([
      askPath(device, tunnel.tunnel),
      askPath(device, tunnel.tunnel),
    ]);
    const generations = both.map(({ grant }) => grant.generation);
    t.deepEqual(generations.sort(), [2, 3]);
    t.is(new Set(both.map(({ grant }) => grant.id)).size, 2);
  },
);

test.serial(
  'path - another device, another app and an unknown tunnel are refused alike',
  async (t) => {
    const { device, rig } = t.context;
    const tunnel = await openTunnel(t.context);
    const other = await rig.device('bob');
    for (const [who, id, app] of [
      [other, tunnel.tunnel, 'wiki'],
      [device, newId('tunnel'), 'wiki'],
      [device, tunnel.tunnel, 'mail'],
    ] as const) {
      t.is(await refusalOf(askPath(who, id, [], app)), 'ERR_TUNNEL_RESUME_REFUSED');
    }
    const records = await rig.plane.services.audit.read();
    const refused = records.filter((row) => row.action === 'tunnel.resume');
    t.deepEqual(
      refused.map(({ actor, outcome }) => [actor, outcome]),
      [other, device, device].map(({ identity }) => [`device:${identity.id}`, 'refused']),
    );
    t.is((await askPath(device, tunnel.tunnel)).grant.generation, 2);
  },
);

test.serial('path - a tunnel of version 1 is not resumed, and ends with its path', async (t) => {
  const { rig, device, relay } = t.context;
  rig.version = 1;
  const old = await rig.connector('paris', ['old']);
  relay.channel.send({
    type: 'slots',
    connector: old.identity.id as never,
    instance: old.instance as never,
    idle: 4,
  });
  await rig.untilRouted('old', device);
  const { grant } = await askPath(device, null, [], 'old');
  t.is(grant.version, 1);
  old.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
  await untilState(rig, grant.tunnel, 'open');
  t.is(await refusalOf(askPath(device, grant.tunnel, [], 'old')), 'ERR_TUNNEL_RESUME_REFUSED');
  const end = { code: 'ERR_TUNNEL_PATH_LOST', reason: 'client_lost', bytesUp: 1, bytesDown: 1 };
  relay.channel.send({ type: 'tunnel_closed', tunnel: grant.tunnel, ...end } as never);
  await untilState(rig, grant.tunnel, 'closed');
});

test.serial(
  'tunnel_closed - a data plane’s word ends no tunnel of version 2 that has begun',
  async (t) => {
    const { rig, relay, device } = t.context;
    const begun = await openTunnel(t.context);
    const unused = (await askPath(device, null)).grant;
    const end = { code: 'ERR_TUNNEL_PATH_LOST', reason: 'client_lost', bytesUp: 0, bytesDown: 0 };
    for (const { tunnel } of [begun, unused]) {
      relay.channel.send({ type: 'tunnel_closed', tunnel, ...end } as never);
    }
    await untilState(rig, unused.tunnel, 'closed');
    t.is((await rig.admin('tunnel.show', { id: begun.tunnel }))['state'], 'open');
  },
);

test.serial(
  'tunnel_closed - the bytes of a tunnel that its agent ended are put on record once',
  async (t) => {
    const { rig, device, connector } = t.context;
    const { tunnel } = await openTunnel(t.context);
    device.channel.send({ type: 'tunnel_closed', tunnel, reason: 'interrupted' });
    await untilState(rig, tunnel, 'closed');
    const end = { code: 'ERR_TUNNEL_CLOSED', reason: 'client_closed' } as const;
    for (const bytesDown of [20, 30]) {
      connector.channel.send({ type: 'tunnel_closed', tunnel, ...end, bytesUp: 1, bytesDown });
    }
    while ((await rig.admin('tunnel.show', { id: tunnel }))['bytesDown'] !== 30) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    const records = (await rig.plane.services.audit.read({ user: 'alice', app: 'wiki' })).filter(
      ({ action }) => action === 'tunnel.bytes',
    );
    t.deepEqual(
      records.map(({ subject, detailsJson }) => [subject, JSON.parse(detailsJson) as unknown]),
      [[tunnel, { bytesUp: 1, bytesDown: 20 }]],
    );
  },
);

test.serial(
  'tunnel_closed, tunnel_joined - only the relays that the grant names have a word on a path',
  async (t) => {
    const { rig, device } = t.context;
    const { code } = await rig.admin<{ code: string }>('invite.relay', {
      name: 'far',
      url: 'https://far.example.com:443',
      isControl: false,
      ttlMs: 60_000,
    });
    const { identity } = await enrol({
      code: parseEnrolmentCode(code),
      hostname: 'far',
      platform: 'linux',
      password: null,
      expectRole: 'data-plane',
    });
    const other = await rig.relayAs(identity);
    const { tunnel } = (await askPath(device, null)).grant;
    const end = { code: 'ERR_TUNNEL_PATH_LOST', reason: 'client_lost', bytesUp: 0, bytesDown: 0 };
    other.channel.send({ type: 'tunnel_joined', tunnel, generation: 1 });
    other.channel.send({ type: 'tunnel_closed', tunnel, ...end } as never);
    const refused = async () => {
      const rows = await rig.admin<{ action: string; actor: string; outcome: string }[]>(
        'audit.tail',
        { limit: 50 },
      );
      return rows.filter(({ action }) => action === 'tunnel.report');
    };
    while ((await refused()).length < 2) await device.channel.request({ type: 'status' });
    t.like((await refused())[0], { actor: `relay:${identity.id}`, outcome: 'refused' });
    t.is((await rig.admin('tunnel.show', { id: tunnel }))['state'], 'granted');
    t.not(rig.plane.services.tunnels.get(tunnel)?.relay, identity.id as never);
  },
);

test.serial(
  'tunnel_closed - an agent that gives a detached tunnel up has its connector let go at once',
  async (t) => {
    const { rig, connector, device } = t.context;
    const detached = await openTunnel(t.context);
    await detach(t.context, detached);
    const open = await openTunnel(t.context);
    for (const { tunnel } of [detached, open]) {
      device.channel.send({ type: 'tunnel_closed', tunnel, reason: 'user_ended' });
      await untilState(rig, tunnel, 'closed');
    }
    await connector.completeTo(rig.plane.services.feed.head);
    const named = connector.entries().map((entry) => entry.subject.id);
    // The other one is told inside the tunnel, behind its last bytes.
    t.deepEqual(named, [detached.tunnel]);
    // Where that was lost with the path, the connector's own report brings it.
    const { tunnel } = open;
    connector.channel.send({ type: 'tunnel_detached', tunnel, generation: 1, reason: 'path_lost' });
    await connector.find(() =>
      connector.entries().some((entry) => entry.subject.id === tunnel) ? true : undefined,
    );
    t.pass();
  },
);

test.serial('path - while a connector is away its tunnels wait for it, and then end', async (t) => {
  const { rig, connector, device, identity } = t.context;
  const [waiting, back] = [await openTunnel(t.context), await openTunnel(t.context)];
  connector.channel.close();
  await connector.channel.closed;
  await until(() => Promise.resolve(rig.plane.services.peers.connectors.size === 0));
  t.is(await refusalOf(askPath(device, waiting.tunnel)), 'ERR_CONNECTOR_OFFLINE');
  t.is((await rig.admin('tunnel.show', { id: waiting.tunnel }))['state'], 'open');
  const { instance } = connector;
  const tunnels = [waiting.tunnel, back.tunnel];
  const same = await rig.connectConnector(identity, apps, { instance, tunnels });
  t.is((await askPath(device, back.tunnel)).grant.generation, 2);

  // Another process of it has no tunnels of the first.
  const next = await rig.connectConnector(identity, apps);
  await same.channel.closed;
  await untilState(rig, waiting.tunnel, 'closed');
  t.is(
    (await rig.admin('tunnel.show', { id: waiting.tunnel }))['closeCode'],
    'ERR_CONNECTOR_OFFLINE',
  );
  t.is(await refusalOf(askPath(device, waiting.tunnel)), 'ERR_TUNNEL_RESUME_REFUSED');
  next.channel.close();
});

test.serial(
  'start - a control plane that comes back takes detached tunnels over and goes on with their generation',
  async (t) => {
    const { rig, connector, identity, device } = t.context;
    const tunnel = await openTunnel(t.context);
    await detach(t.context, tunnel);
    t.is((await askPath(device, tunnel.tunnel)).grant.generation, 2);
    await rig.plane.stop();
    await rig.startPlane();
    t.is((await rig.admin('tunnel.show', { id: tunnel.tunnel }))['state'], 'detached');
    const again = await rig.connectDevice(device.identity);
    t.is(await refusalOf(askPath(again, tunnel.tunnel)), 'ERR_CONNECTOR_OFFLINE');
    const { instance } = connector;
    const back = await rig.connectConnector(identity, apps, { instance, tunnels: [tunnel.tunnel] });
    await rig.relay(back);
    await rig.untilRouted('wiki', again);
    const { grant } = await askPath(again, tunnel.tunnel);
    t.is(grant.generation, 3);
    t.true(grant.sequence[0] > tunnel.sequence[0]);
  },
);

test.serial(
  'path - a newer session takes the tunnel over, and its end ends the tunnel',
  async (t) => {
    const { rig, device, connector } = t.context;
    const tunnel = await openTunnel(t.context);
    const { store } = rig.plane.services;
    const session = newId('session');
    await store.write(async (tx) => {
      const row = await tx
        .selectFrom('sessions')
        .selectAll()
        .where('id', '=', tunnel.session)
        .executeTakeFirstOrThrow();
      const createdAtMs = row.createdAtMs + 1;
      await tx
        .insertInto('sessions')
        .values({ ...row, id: session, createdAtMs })
        .execute();
    });
    const { grant } = await askPath(device, tunnel.tunnel);
    t.is(grant.session, session);
    await rig.admin('revoke', { kind: 'session', id: session, reason: 'test' });
    t.is((await rig.admin('tunnel.show', { id: tunnel.tunnel }))['state'], 'closed');
    await connector.completeTo(rig.plane.services.feed.head);
    t.true(connector.entries().some((entry) => entry.subject.id === session));
  },
);

test.serial('overdue - a detached tunnel ends when its hold is over, and not before', async (t) => {
  const { rig, connector, device } = t.context;
  const tunnel = await openTunnel(t.context);
  await detach(t.context, tunnel);
  const { services } = rig.plane;
  const nowMs = services.clock.nowMs();
  await endOverdue(services, nowMs + 59_000);
  t.is((await rig.admin('tunnel.show', { id: tunnel.tunnel }))['state'], 'detached');
  await endOverdue(services, nowMs + 66_000);
  t.like(await rig.admin('tunnel.show', { id: tunnel.tunnel }), {
    state: 'closed',
    closeReason: 'hold_expired',
  });
  // Should its connector still hold it, it lets go.
  await services.feed.wake();
  await connector.completeTo(services.feed.head);
  t.true(connector.entries().some((entry) => entry.subject.id === tunnel.tunnel));
  t.is(await refusalOf(askPath(device, tunnel.tunnel)), 'ERR_TUNNEL_RESUME_REFUSED');
});

test.serial(
  'overdue - whoever waits for a connector that stays away is told within 8 s, and others keep their path',
  async (t) => {
    const { rig, connector, device } = t.context;
    const detached = await openTunnel(t.context);
    await detach(t.context, detached);
    const asking = await openTunnel(t.context);
    const quiet = await openTunnel(t.context);
    const { services } = rig.plane;
    // The time that connectors have after a start is over.
    const startMs = services.absences.untilMs(connector.identity.id as never);
    services.absences.leave(connector.identity.id as never, startMs);
    connector.channel.close();
    await until(() => Promise.resolve(services.peers.connectors.size === 0));
    t.is(await refusalOf(askPath(device, asking.tunnel)), 'ERR_CONNECTOR_OFFLINE');
    services.absences.leave(connector.identity.id as never, startMs);
    await endOverdue(services, startMs + connectorAwayMs - 1);
    t.deepEqual(await statesOf(rig, [detached, asking, quiet]), ['detached', 'open', 'open']);
    await endOverdue(services, startMs + connectorAwayMs);
    t.deepEqual(await statesOf(rig, [detached, asking, quiet]), ['closed', 'closed', 'open']);
    const ended = await device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === asking.tunnel ? message : undefined,
    );
    t.like(ended, { code: 'ERR_CONNECTOR_OFFLINE', reason: 'connector_lost' });
  },
);

test.serial(
  'lease - of a tunnel whose connector stayed away runs out, and its agent is told to ask for another',
  async (t) => {
    const { rig, connector, device } = t.context;
    const { tunnel: id } = await openTunnel(t.context);
    const { services } = rig.plane;
    const { absences, clock, peers, tunnels } = services;
    connector.channel.close();
    await until(() => Promise.resolve(peers.connectors.size === 0));
    const live = tunnels.get(id);
    if (!live) throw new Error('no tunnel');
    live.untilMs = clock.nowMs() - 1; // nobody reported that its path is lost
    absences.restart(clock.nowMs() - 1_000_000);
    absences.leave(connector.identity.id as never, clock.nowMs() - connectorAwayMs);
    await verifyTunnels(services, [id]);
    const ended = await device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === id ? message : undefined,
    );
    t.like(ended, { code: 'ERR_CONNECTOR_OFFLINE', reason: 'connector_lost' });
  },
);

test.serial(
  'overdue - while no data plane is there no connector is missed, and then all have time to come back',
  async (t) => {
    const { rig, connector, relay, device } = t.context;
    const tunnel = await openTunnel(t.context);
    await detach(t.context, tunnel);
    const { services } = rig.plane;
    const { absences, clock, peers } = services;
    for (const { channel } of [relay, connector]) channel.close();
    await until(() => Promise.resolve(peers.connectors.size + peers.relays.size === 0));
    absences.restart(clock.nowMs() - 1_000_000); // long ago
    absences.leave(connector.identity.id as never, clock.nowMs() - 500_000);
    await endOverdue(services, clock.nowMs());
    t.is(await refusalOf(askPath(device, tunnel.tunnel)), 'ERR_CONNECTOR_OFFLINE');
    t.deepEqual(await statesOf(rig, [tunnel]), ['detached']);
    await rig.relay();
    await endOverdue(services, clock.nowMs());
    t.deepEqual(await statesOf(rig, [tunnel]), ['detached']);
    await endOverdue(services, absences.untilMs(connector.identity.id as never));
    t.deepEqual(await statesOf(rig, [tunnel]), ['closed']);
  },
);

async function statesOf(rig: Rig, grants: readonly Grant[]): Promise<unknown[]> {
  const rows = grants.map(({ tunnel }) => rig.admin('tunnel.show', { id: tunnel }));
  return (await Promise.all(rows)).map((row) => row['state']);
}

test.serial(
  'reports - of too many detached tunnels of a device the one detached longest ends',
  async (t) => {
    const { rig, device } = t.context;
    const grants: Grant[] = [];
    for (let at = 0; at <= maxDetachedPerDevice; at++) {
      const grant = await openTunnel(t.context);
      grants.push(grant);
      if (at < maxDetachedPerDevice) await detach(t.context, grant);
    }
    const [first, second] = grants;
    const last = grants.at(-1);
    if (!first || !second || !last) throw new Error('none');
    const { tunnel, generation } = last;
    const report = { type: 'tunnel_detached', tunnel, generation, reason: 'path_lost' } as const;
    t.context.connector.channel.send(report);
    await untilState(rig, first.tunnel, 'closed');
    t.deepEqual(await statesOf(rig, [second, last]), ['detached', 'detached']);
    const ended = await device.find((message) =>
      message.type === 'tunnel_ended' ? message : undefined,
    );
    t.like(ended, { tunnel: first.tunnel, code: 'ERR_LIMIT_TUNNELS' });
  },
);

test.serial(
  'path - a relay that drains is not named, and where there is no other the agent is told to wait',
  async (t) => {
    const { rig, relay, device } = t.context;
    const tunnel = await openTunnel(t.context);
    relay.channel.send({ type: 'draining' });
    await until(() =>
      Promise.resolve([...rig.plane.services.peers.relays.values()].every((r) => r.isDraining)),
    );
    t.is(await refusalOf(askPath(device, tunnel.tunnel)), 'ERR_RELAY_DRAINING');
    t.is(await refusalOf(askPath(device, null)), 'ERR_RELAY_DRAINING');
    t.is((await rig.admin('tunnel.show', { id: tunnel.tunnel }))['state'], 'open');
  },
);

test.serial('tunnel_joined - shows which relay carries the newest path', async (t) => {
  const { rig, relay } = t.context;
  const { tunnel } = await openTunnel(t.context);
  const { services } = rig.plane;
  const live = services.tunnels.get(tunnel);
  if (!live) throw new Error('not there');
  live.relay = null;
  relay.channel.send({ type: 'tunnel_joined', tunnel, generation: 7 }); // never granted
  relay.channel.send({ type: 'tunnel_joined', tunnel, generation: 1 });
  await until(() => Promise.resolve(live.relay !== null));
  t.is((await rig.admin('tunnel.show', { id: tunnel }))['relay'], relay.identity.id);
});
