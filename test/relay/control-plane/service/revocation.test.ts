import anyTest, { type TestFn } from 'ava';
import {
  grantSchema,
  leaseBatchSchema,
  newId,
  verifyStatement,
  type Grant,
  type LeaseBatch,
} from '../../../../protocol/index.ts';
import { Rig, staffPolicy, type ConnectorPeer, type DevicePeer, type RelayPeer } from './rig.ts';

interface Context {
  rig: Rig;
  berlin: ConnectorPeer;
  paris: ConnectorPeer;
  relay: RelayPeer;
}
const test = anyTest as TestFn<Context>;

test.before('two sites, verified every second', async (t) => {
  const rig = await Rig.start({ verification: { intervalMs: 1_000, holdMs: 300_000 } });
  t.context.rig = rig;
  await rig.admin('policy.apply', { files: staffPolicy });
  t.context.berlin = await rig.connector('berlin', ['wiki']);
  t.context.paris = await rig.connector('paris', ['mail']);
  t.context.relay = await rig.relay(t.context.berlin, t.context.paris);
});

test.after.always('stop', async (t) => {
  await t.context.rig.stop();
});

/** A granted tunnel that its connector has reported open. */
async function openTunnel(
  device: DevicePeer,
  connector: ConnectorPeer,
  app: string,
): Promise<Grant> {
  const permit = await device.channel.request({ type: 'grant', app });
  if (permit.type !== 'permit') throw new Error('no permit');
  const grant = verifyStatement(
    'grant',
    grantSchema,
    permit.grant,
    device.identity.bundle.grantKeys,
  );
  connector.channel.send({ type: 'tunnel_opened', tunnel: grant.tunnel });
  return grant;
}

async function user(t: { context: Context }, name: string, app = 'wiki'): Promise<DevicePeer> {
  const device = await t.context.rig.device(name);
  await t.context.rig.untilRouted(app, device);
  return device;
}

test.serial(
  'revoke - a word as the reason is what users, enforcers and audit see; a text is for the audit alone',
  async (t) => {
    const { rig, berlin, relay } = t.context;
    const device = await user(t, 'rita');
    for (const [text, word] of [
      ['laptop_stolen', 'laptop_stolen'],
      ['Seen at the airport; see case 7', 'revoked_by_admin'],
      ['r'.repeat(65), 'revoked_by_admin'],
    ] as const) {
      const grant = await openTunnel(device, berlin, 'wiki');
      await rig.admin('revoke', { kind: 'tunnel', id: grant.tunnel, reason: text });
      const ended = await device.find((message) =>
        message.type === 'tunnel_ended' && message.tunnel === grant.tunnel ? message : undefined,
      );
      t.is(ended.reason, word);
      await relay.completeTo(rig.plane.services.feed.head);
      const entry = relay.entries().find(({ subject }) => subject.id === grant.tunnel);
      t.is(entry?.reason, word);
      t.is((await rig.admin('tunnel.show', { id: grant.tunnel }))['closeReason'], word);
      const records = await rig.plane.services.audit.read();
      const details = (action: string) =>
        JSON.parse(
          records.find((row) => row.action === action && row.subject === grant.tunnel)
            ?.detailsJson ?? '{}',
        ) as Record<string, unknown>;
      t.is(details('tunnel.revoke')['reason'], text);
      t.is(details('tunnel.end')['reason'], word);
    }
  },
);

test.serial(
  'revoke - an entry goes to every data plane and only to the connectors it concerns',
  async (t) => {
    const { rig, berlin, paris, relay } = t.context;
    const device = await user(t, 'alice');
    const grant = await openTunnel(device, berlin, 'wiki');
    await rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'left the company' });
    const head = rig.plane.services.feed.head;
    await Promise.all([relay, berlin, paris].map((peer) => peer.completeTo(head)));
    const isAlice = (entry: { subject: { id: string } }) => entry.subject.id === grant.user;
    t.is(relay.entries().filter(isAlice).length, 1);
    t.is(berlin.entries().filter(isAlice).length, 1);
    t.is(paris.entries().filter(isAlice).length, 0);
    const ended = await device.find((message) =>
      message.type === 'tunnel_ended' ? message : undefined,
    );
    t.is(ended.tunnel, grant.tunnel);
    t.is(ended.code, 'ERR_TUNNEL_REVOKED');
    t.is(ended.reason, 'revoked_by_admin');
    t.is((await rig.admin('tunnel.show', { id: grant.tunnel }))['state'], 'closed');
    // A new sign-in is allowed after revoking a user.
    const answer = await device.channel.request({
      type: 'sign_in',
      user: 'alice',
      password: 'correct-horse-of-a-test',
      otp: null,
    });
    t.is(answer.type, 'signed_in');
  },
);

test.serial(
  'revoke - a grant that its agent reported closed still reaches its connector',
  async (t) => {
    const { rig, berlin } = t.context;
    const device = await user(t, 'bob');
    const permit = await device.channel.request({ type: 'grant', app: 'wiki' });
    if (permit.type !== 'permit') throw new Error('no permit');
    const grant = verifyStatement(
      'grant',
      grantSchema,
      permit.grant,
      device.identity.bundle.grantKeys,
    );
    device.channel.send({ type: 'tunnel_closed', tunnel: grant.tunnel, reason: 'user_ended' });
    await device.channel.request({ type: 'status' }); // requests are answered in order
    await rig.admin('user.disable', { name: 'bob' });
    await berlin.completeTo(rig.plane.services.feed.head);
    t.true(berlin.entries().some((entry) => entry.subject.id === grant.user));
  },
);

test.serial(
  'verification - leases go out each second with ascending order, to each only its own',
  async (t) => {
    const { rig, berlin, paris, relay } = t.context;
    const device = await user(t, 'carol');
    const other = await user(t, 'dave', 'mail');
    const grant = await openTunnel(device, berlin, 'wiki');
    const otherGrant = await openTunnel(other, paris, 'mail');
    const open = (message: { type: string }): LeaseBatch | undefined =>
      message.type === 'leases'
        ? verifyStatement(
            'lease',
            leaseBatchSchema,
            (message as unknown as { statement: string }).statement,
            device.identity.bundle.grantKeys,
          )
        : undefined;
    const seen: [number, number][] = [];
    await device.find((message) => {
      const batch = open(message);
      if (!batch) return undefined;
      for (const [tunnel, [fencing, counter], untilMs] of batch.entries) {
        t.is(tunnel, grant.tunnel);
        t.is(fencing, grant.sequence[0]);
        seen.push([counter, untilMs]);
      }
      return seen.length >= 3 ? true : undefined;
    });
    t.true(grant.sequence[1] < (seen[0]?.[0] ?? 0));
    t.true((seen[0]?.[0] ?? 0) < (seen[1]?.[0] ?? 0) && (seen[1]?.[0] ?? 0) < (seen[2]?.[0] ?? 0));
    t.true((seen[0]?.[1] ?? 0) < (seen[2]?.[1] ?? 0));
    const tunnelsTold = (peer: { messages: readonly { type: string }[] }) =>
      new Set<string>(peer.messages.flatMap((m) => open(m)?.entries.map(([id]) => id) ?? []));
    t.true(tunnelsTold(berlin).has(grant.tunnel));
    t.false(tunnelsTold(berlin).has(otherGrant.tunnel));
    t.true(tunnelsTold(relay).has(grant.tunnel) && tunnelsTold(relay).has(otherGrant.tunnel));
    t.false(tunnelsTold(other).has(grant.tunnel));
    await rig.admin('decision.show', { id: grant.decision });
  },
);

test.serial(
  'group member add --until - no lease outlasts the membership that carries it',
  async (t) => {
    const { rig, berlin } = t.context;
    const device = await user(t, 'erin');
    const grant = await openTunnel(device, berlin, 'wiki');
    const untilMs = rig.plane.services.clock.nowMs() + 1_500;
    await rig.admin('group.member.add', { group: 'staff', user: 'erin', untilMs });
    const ended = await device.find((message) =>
      message.type === 'tunnel_ended' ? message : undefined,
    );
    t.is(ended.tunnel, grant.tunnel);
    const leases = device.messages.flatMap((message) =>
      message.type === 'leases'
        ? verifyStatement(
            'lease',
            leaseBatchSchema,
            message.statement,
            device.identity.bundle.grantKeys,
          ).entries
        : [],
    );
    const [, , lastUntilMs] = leases.at(-1) ?? [];
    t.is(lastUntilMs, untilMs);
  },
);

test.serial('policy apply - ends what the new policy denies and leaves the rest', async (t) => {
  const { rig, berlin, paris } = t.context;
  const device = await user(t, 'frank');
  const wiki = await openTunnel(device, berlin, 'wiki');
  const mail = await openTunnel(device, paris, 'mail');
  const files = {
    'mail.cedar':
      '@id("mail") permit (principal in Group::"staff", action == Action::"connect", resource == App::"mail");',
  };
  const before = await rig.admin<{ version: number }>('policy.show');
  const dry = await rig.admin<{ tunnelsEnded: number }>('policy.apply', { files, dryRun: true });
  t.true(dry.tunnelsEnded >= 1);
  t.is((await rig.admin<{ version: number }>('policy.show')).version, before.version);
  t.not((await rig.admin('tunnel.show', { id: wiki.tunnel }))['state'], 'closed');

  await rig.admin('policy.apply', { files });
  const ended = await device.find((message) =>
    message.type === 'tunnel_ended' ? message : undefined,
  );
  t.is(ended.tunnel, wiki.tunnel);
  t.is(ended.reason, 'policy_changed');
  t.not((await rig.admin('tunnel.show', { id: mail.tunnel }))['state'], 'closed');
  await t.throwsAsync(device.channel.request({ type: 'grant', app: 'wiki' }), {
    code: 'ERR_POLICY_DENIED',
  });
  await rig.admin('policy.apply', { files: staffPolicy });
});

test.serial(
  'policy apply - what is not valid changes nothing and says where it is wrong',
  async (t) => {
    const { rig } = t.context;
    const before = await rig.admin<{ version: number }>('policy.show');
    const error = await t.throwsAsync(
      rig.admin('policy.apply', {
        files: { 'bad.cedar': 'permit (principal,\n  action,\n resourc);' },
      }),
      { code: 'ERR_POLICY_INVALID' },
    );
    t.regex(error.message, /^bad\.cedar:3:\d+: /);
    t.is((await rig.admin<{ version: number }>('policy.show')).version, before.version);
    const { policy } = rig.plane.services;
    t.is(policy.version, before.version);
  },
);

test.serial(
  'hello - a connector that comes back hears what it missed, and its tunnels go on',
  async (t) => {
    const { rig } = t.context;
    const identity = await rig.enrolConnector('oslo', ['chat']);
    const first = await rig.connectConnector(identity, ['chat']);
    t.context.relay.channel.send({
      type: 'slots',
      connector: identity.id as never,
      instance: first.instance as never,
      idle: 4,
    });
    const device = await user(t, 'grace', 'chat');
    const kept = await openTunnel(device, first, 'chat');
    const gone = await openTunnel(device, first, 'chat');
    await device.find((message) => (message.type === 'leases' ? message : undefined));
    first.channel.close();
    await first.channel.closed;
    await rig.admin('revoke', { kind: 'tunnel', id: gone.tunnel, reason: 'test' });
    const again = await rig.connectConnector(identity, ['chat'], {
      instance: first.instance,
      tunnels: [kept.tunnel, gone.tunnel],
    });
    await again.find((message) => (message.type === 'leases' ? message : undefined));
    t.true(again.entries().some((entry) => entry.subject.id === gone.tunnel));
    t.false(again.entries().some((entry) => entry.subject.id === kept.tunnel));
    t.is((await rig.admin('tunnel.show', { id: kept.tunnel }))['state'], 'open');
  },
);

test.serial(
  'hello - a new process of a connector ends the tunnels of the old, which stays out',
  async (t) => {
    const { rig } = t.context;
    const identity = await rig.enrolConnector('rome', ['shop']);
    const first = await rig.connectConnector(identity, ['shop']);
    t.context.relay.channel.send({
      type: 'slots',
      connector: identity.id as never,
      instance: first.instance as never,
      idle: 4,
    });
    const device = await user(t, 'heidi', 'shop');
    const grant = await openTunnel(device, first, 'shop');
    await rig.connectConnector(identity, ['shop'], { instance: newId('instance') });
    t.is((await first.channel.closed).code, 'ERR_CONNECTOR_REPLACED');
    const ended = await device.find((message) =>
      message.type === 'tunnel_ended' ? message : undefined,
    );
    t.is(ended.tunnel, grant.tunnel);
    await t.throwsAsync(rig.connectConnector(identity, ['shop'], { instance: first.instance }), {
      code: 'ERR_CONNECTOR_REPLACED',
    });
  },
);

test.serial(
  'revoke device - its channel closes and its certificate opens nothing any more',
  async (t) => {
    const { rig } = t.context;
    const device = await user(t, 'ivan');
    await rig.admin('revoke', { kind: 'device', id: device.identity.id, reason: 'lost' });
    t.is((await device.channel.closed).code, 'ERR_IDENTITY_REVOKED');
    await t.throwsAsync(rig.connectDevice(device.identity), { code: 'ERR_IDENTITY_REVOKED' });
  },
);

test.serial(
  'restart - tunnels are taken over under a higher fencing number, and control time goes on',
  async (t) => {
    const { rig } = t.context;
    const device = await user(t, 'judy');
    const grant = await openTunnel(device, t.context.berlin, 'wiki');
    await device.find((message) => (message.type === 'leases' ? message : undefined));
    const beforeMs = rig.plane.services.clock.nowMs();
    await rig.plane.stop();
    await rig.startPlane();
    t.true(rig.plane.services.clock.nowMs() >= beforeMs);
    const berlin = await rig.connectConnector(t.context.berlin.identity, ['wiki'], {
      instance: t.context.berlin.instance,
      tunnels: [grant.tunnel],
    });
    const entry = await berlin.find((message) => {
      if (message.type !== 'leases') return undefined;
      const { grantKeys } = berlin.identity.bundle;
      const batch = verifyStatement('lease', leaseBatchSchema, message.statement, grantKeys);
      return batch.entries.find(([id]) => id === grant.tunnel);
    });
    t.true(entry[1][0] > grant.sequence[0]);
  },
);
