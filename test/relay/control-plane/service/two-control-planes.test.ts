import anyTest, { type TestFn } from 'ava';
import {
  grantSchema,
  leaseBatchSchema,
  parseEnrolmentCode,
  verifyBundle,
  verifyStatement,
  type Grant,
} from '../../../../protocol/index.ts';
import { enrol, type Identity } from '../../../../protocol/host/index.ts';
import { missingServer } from '../../../support/postgresql.ts';
import { stopOwnPostgres } from '../../../support/shared-postgresql.ts';
import { fileEngine } from '../fixture.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer } from './rig.ts';

interface Context {
  first: Rig;
  second: Rig;
  connector: Identity;
  /** Its channels with each of the two. */
  links: readonly [ConnectorPeer, ConnectorPeer];
}
const missing = missingServer();
const test = anyTest as TestFn<Context>;
const apps = ['wiki', 'mail'];
fileEngine.isPostgres = true;

/** The same machine, once it has the bundle that names both control planes. */
function renewed(identity: Identity, rig: Rig): Identity {
  const pinned = { rootId: identity.rootId, minVersion: 0 };
  const { statement } = rig.plane.services.bundle;
  return { ...identity, bundle: verifyBundle(statement, pinned, Date.now()) };
}

if (missing !== undefined) {
  test.skip(`two control planes: ${missing}`, (t) => {
    t.fail();
  });
} else {
  declare();
}

function declare(): void {
  test.before('two control planes on one store', async (t) => {
    t.timeout(120_000);
    const first = await Rig.start({ verification: { intervalMs: 1_000, holdMs: 60_000 } });
    first.version = 2;
    await first.admin('policy.apply', { files: staffPolicy });
    const second = await Rig.join(first);
    const connector = renewed(await first.enrolConnector('berlin', apps), first);
    const one = await first.connectConnector(connector, apps);
    const two = await second.connectConnector(connector, apps, { instance: one.instance });
    const relay = await first.relay(one);
    await second.relayAs(renewed(relay.identity, first), two);
    t.context = { first, second, connector, links: [one, two] };
  });

  test.after.always('stop', async (t) => {
    const { first, second } = t.context as Partial<Context>;
    await second?.stop();
    await first?.stop();
    await stopOwnPostgres();
  });

  test.serial('join - the bundle names the keys of both, and each opens channels to both', (t) => {
    const { first, second, connector } = t.context;
    t.is(connector.bundle.grantKeys.length, 2);
    t.is(connector.bundle.authorities.length, 2);
    t.is(first.plane.services.bundle.version, second.plane.services.bundle.version);
    t.is(second.plane.services.peers.connectors.size, 1);
  });

  test.serial(
    'relay remove - a relay with a control plane is removed only where the root key is',
    async (t) => {
      const { first, second } = t.context;
      const relays = await second.admin<{ id: string; url: string }[]>('relay.list');
      const root = relays.find(({ url }) => url === first.plane.services.settings.url);
      t.truthy(root);
      await t.throwsAsync(second.admin('relay.remove', { id: root?.id }), { message: /root key/ });
    },
  );

  test.serial('invite relay - a code to join is made only where the root key is', async (t) => {
    const { second } = t.context;
    const args = { name: 'third', url: 'https://third.example.com', ttlMs: 60_000 };
    await t.throwsAsync(second.admin('invite.relay', { ...args, isControl: true }), {
      message: /root key/,
    });
    await t.notThrowsAsync(second.admin('invite.relay', { ...args, isControl: false }));
  });

  test.serial(
    'policy apply - at one is decided by at the other before its next grant',
    async (t) => {
      const { first, second } = t.context;
      const device = await deviceAt(t.context, 'anna');
      t.is(await outcomeOf(device, 'wiki'), 'granted');
      await first.admin('policy.apply', {
        files: {
          'mail.cedar':
            '@id("mail") permit (principal in Group::"staff", action == Action::"connect", resource == App::"mail");',
        },
      });
      t.is(await outcomeOf(device, 'wiki'), 'ERR_POLICY_DENIED');
      t.is(await outcomeOf(device, 'mail'), 'granted');
      t.is(second.plane.services.policy.version, first.plane.services.policy.version);
      await first.admin('policy.apply', { files: staffPolicy });
    },
  );

  test.serial(
    'revoke - at one reaches connectors and devices of the other, and ends its tunnels',
    async (t) => {
      const { first, links } = t.context;
      const device = await deviceAt(t.context, 'ben');
      const grant = await grantOf(device, 'wiki');
      links[1].channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
      await leaseOf(device, grant.tunnel);
      const { tunnelsEnded } = await first.admin<{ tunnelsEnded: number }>('user.disable', {
        name: 'ben',
      });
      t.is(tunnelsEnded, 1);
      const ended = await device.find((message) =>
        message.type === 'tunnel_ended' && message.tunnel === grant.tunnel ? message : undefined,
      );
      t.is(ended.code, 'ERR_TUNNEL_REVOKED');
      for (const link of links) {
        await link.completeTo(first.plane.services.feed.head);
        t.true(link.entries().some(({ subject }) => subject.id === grant.user));
      }
    },
  );

  test.serial('group member remove - at one ends tunnels that the other has granted', async (t) => {
    const { first } = t.context;
    const device = await deviceAt(t.context, 'carl');
    const grant = await grantOf(device, 'wiki');
    const result = await first.admin<{ tunnelsEnded: number }>('group.member.remove', {
      group: 'staff',
      user: 'carl',
    });
    t.is(result.tunnelsEnded, 1);
    await device.find((message) =>
      message.type === 'tunnel_ended' && message.tunnel === grant.tunnel ? message : undefined,
    );
  });

  test.serial(
    'group member remove - is decided by the newest policy, also where that was not heard of yet',
    async (t) => {
      const { first, second } = t.context;
      const { services } = second.plane;
      const before = services.policy;
      const enrolled = await first.device('gina', ['staff', 'ops']);
      enrolled.channel.close();
      await first.admin('policy.apply', {
        files: {
          'ops.cedar':
            '@id("ops") permit (principal in Group::"ops", action == Action::"connect", resource);',
        },
      });
      const device = await second.connectDevice(renewed(enrolled.identity, first));
      await second.untilRouted('wiki', device);
      await grantOf(device, 'wiki');
      services.policy = before;
      const { tunnelsEnded } = await second.admin<{ tunnelsEnded: number }>('group.member.remove', {
        group: 'ops',
        user: 'gina',
      });
      t.is(tunnelsEnded, 1);
      await first.admin('policy.apply', { files: staffPolicy });
    },
  );

  test.serial('relay remove - at one ends its channel with the other', async (t) => {
    const { first, second } = t.context;
    const { code } = await first.admin<{ code: string }>('invite.relay', {
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
    const relay = await second.relayAs(renewed(identity, first));
    await first.admin('relay.remove', { id: 'far' });
    t.is((await relay.channel.closed).code, 'ERR_IDENTITY_REVOKED');
    t.false(second.plane.services.peers.relays.has(identity.id));
  });

  test.serial(
    'hello - a connector process that a newer one replaces at one is cut off at the other',
    async (t) => {
      const { first, second } = t.context;
      const identity = renewed(await first.enrolConnector('munich', ['files']), first);
      const older = await second.connectConnector(identity, ['files']);
      const newer = await first.connectConnector(identity, ['files']);
      t.is((await older.channel.closed).code, 'ERR_CONNECTOR_REPLACED');
      t.true(first.plane.services.peers.isNewest(identity.id as never, newer.instance as never));
      t.true(first.plane.services.peers.connectors.has(identity.id));
    },
  );

  test.serial(
    'hello - a device that names its tunnels is verified where it is from then on',
    async (t) => {
      const { first, second, links } = t.context;
      const device = await deviceAt(t.context, 'dora');
      const grant = await grantOf(device, 'wiki');
      links[1].channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
      const before = await leaseOf(device, grant.tunnel);
      device.channel.close();
      await device.channel.closed;
      const moved = await first.connectDevice(renewed(device.identity, first), [grant.tunnel]);
      const after = await leaseOf(moved, grant.tunnel);
      t.true(after[0] > before[0], 'a higher fencing number');
      t.is(first.plane.services.tunnels.get(grant.tunnel)?.owner, 'cp');
      while (second.plane.services.tunnels.get(grant.tunnel)?.owner !== 'cp') {
        await second.settled();
      }
    },
  );

  test.serial('limits - are counted over both', async (t) => {
    const { first, second } = t.context;
    const device = await deviceAt(t.context, 'emil');
    await grantOf(device, 'wiki');
    const limits = { ...first.settings.limits, tunnelsPerUser: 1 };
    const { settings } = second.plane.services as { settings: { limits: unknown } };
    const usual = settings.limits;
    settings.limits = limits;
    t.is(await outcomeOf(device, 'mail'), 'ERR_LIMIT_TUNNELS');
    settings.limits = usual;
  });

  test.serial(
    'audit verify - checks the chain of each control plane by the root\u2019s word',
    async (t) => {
      const { first, second } = t.context;
      for (const rig of [first, second]) {
        t.like(await rig.admin('audit.verify'), { isIntact: true });
      }
      const rows = await first.plane.services.audit.read();
      t.is(new Set(rows.map(({ writer }) => writer)).size, 2);
      await second.plane.services.audit.checkpoint();
      t.like(await first.admin('audit.verify'), { isIntact: true });
    },
  );

  test.serial(
    'takes over - the tunnels of a control plane that has stopped are verified by the other',
    async (t) => {
      t.timeout(60_000);
      const { second, links } = t.context;
      const device = await deviceAt(t.context, 'frida');
      const grant = await grantOf(device, 'wiki');
      links[1].channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
      const before = await leaseOf(device, grant.tunnel);
      await second.plane.stop();
      const after = await links[0].find((message) => {
        if (message.type !== 'leases') return undefined;
        const batch = verifyStatement(
          'lease',
          leaseBatchSchema,
          message.statement,
          links[0].identity.bundle.grantKeys,
        );
        const entry = batch.entries.find(([tunnel]) => tunnel === grant.tunnel);
        return entry && entry[1][0] > before[0] ? entry[1] : undefined;
      });
      t.true(after[0] > before[0]);
      await second.startPlane();
    },
  );

  // The last one: there is one control plane from here on.
  test.serial(
    'relay remove - a control plane that is removed decides nothing more, ends, and others take its tunnels over',
    async (t) => {
      t.timeout(60_000);
      const { first, second, connector } = t.context;
      const relay = await first.relay();
      await second.relayAs(renewed(relay.identity, first));
      const one = await first.connectConnector(connector, apps);
      const two = await second.connectConnector(connector, apps, { instance: one.instance });
      for (const rig of [first, second]) {
        const identity = renewed(relay.identity, first);
        await rig.relayAs(identity, one);
      }
      const device = await deviceAt(t.context, 'gustav');
      const grant = await grantOf(device, 'wiki');
      two.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
      const before = await leaseOf(device, grant.tunnel);
      await first.admin('relay.remove', { id: 'second' });
      // Asked before it could notice: it finds out in the very transaction.
      t.not(await outcomeOf(device, 'mail'), 'granted');
      await second.plane.removed;
      const taken = await one.find((message) => {
        if (message.type !== 'leases') return undefined;
        const { grantKeys } = one.identity.bundle;
        const batch = verifyStatement('lease', leaseBatchSchema, message.statement, grantKeys);
        return batch.entries.find(([id, order]) => id === grant.tunnel && order[0] > before[0]);
      });
      t.truthy(taken);
      t.is(first.plane.services.tunnels.get(grant.tunnel)?.owner, 'cp');
      await t.throwsAsync(second.startPlane(), { code: 'ERR_IDENTITY_REVOKED' });
    },
  );
}

async function deviceAt({ first, second }: Context, user: string): Promise<DevicePeer> {
  const enrolled = await first.device(user);
  enrolled.channel.close();
  const device = await second.connectDevice(renewed(enrolled.identity, first));
  await second.untilRouted('wiki', device);
  return device;
}

async function grantOf(device: DevicePeer, app: string): Promise<Grant> {
  const permit = await device.channel.request({ type: 'grant', app });
  if (permit.type !== 'permit') throw new Error('no permit');
  return verifyStatement('grant', grantSchema, permit.grant, device.identity.bundle.grantKeys);
}

async function outcomeOf(device: DevicePeer, app: string): Promise<string> {
  return grantOf(device, app).then(
    () => 'granted',
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );
}

/** The order of the first renewal of that tunnel which the device is sent. */
async function leaseOf(device: DevicePeer, tunnel: string): Promise<readonly [number, number]> {
  return device.find((message) => {
    if (message.type !== 'leases') return undefined;
    const { grantKeys } = device.identity.bundle;
    const batch = verifyStatement('lease', leaseBatchSchema, message.statement, grantKeys);
    return batch.entries.find(([id]) => id === tunnel)?.[1];
  });
}
