import test from 'ava';
import type { Subject } from '../../../protocol/index.ts';
import { RelayRig } from '../../support/relay-rig.ts';

test('enforcement - closes both ends when the lease ends, although bytes still flow', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const untilMs = Date.now() + 1_000;
  const { client, connector, grant } = await rig.tunnel({ untilMs });
  const chatter = setInterval(() => {
    if (client.ws.readyState === client.ws.OPEN) client.send(Buffer.alloc(100));
  }, 5);
  t.teardown(() => {
    clearInterval(chatter);
  });
  t.is(await client.closeCode(), 'ERR_TUNNEL_LEASE_EXPIRED');
  t.is(await connector.closeCode(), 'ERR_TUNNEL_LEASE_EXPIRED');
  // Control time is assumed late by what the first exchange took, never early.
  t.true(Date.now() >= untilMs - 500);
  const end = await rig.control.message('tunnel_closed');
  t.like(end, { tunnel: grant.tunnel, code: 'ERR_TUNNEL_LEASE_EXPIRED', reason: 'lease_expired' });
});

test('enforcement - goes by the higher sequence of renewals alone, also when it shortens', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { connector: connectorId } = rig.authority;
  const farMs = Date.now() + 60_000;
  const { client, grant } = await rig.tunnel({ untilMs: Date.now() + 1_500, sequence: [1, 5] });
  const push = (sequence: [number, number], untilMs: number, connector = connectorId) => {
    rig.control.pushLeases({ connector, entries: [[grant.tunnel, sequence, untilMs]] });
  };
  push([1, 6], farMs);
  push([1, 4], 1); // a late, lower one
  push([1, 7], 1, newOther(rig)); // of another connector's batch
  let isClosed = false;
  void client.closed.then(() => (isClosed = true));
  await new Promise((resolve) => setTimeout(resolve, 2_000)); // past the first lease
  t.false(isClosed);
  push([2, 0], Date.now() - 1);
  t.is(await client.closeCode(), 'ERR_TUNNEL_LEASE_EXPIRED');
});

function newOther(rig: RelayRig) {
  return `${rig.authority.connector.slice(0, -1)}${rig.authority.connector.endsWith('0') ? '1' : '0'}` as typeof rig.authority.connector;
}

test('enforcement - closes both ends at an entry of the log about any of the grant’s subjects', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const kinds = ['user', 'session', 'device', 'app', 'tunnel', 'connector'] as const;
  for (const kind of kinds) {
    const { client, connector, grant } = await rig.tunnel();
    const action = kind === 'session' ? 'suspend' : 'revoke';
    rig.control.pushLog([
      { action, subject: { kind, id: grant[kind] } as Subject, reason: `${kind}_test` },
    ]);
    t.is(await client.closeCode(), 'ERR_TUNNEL_REVOKED');
    t.is(await connector.closeCode(), 'ERR_TUNNEL_REVOKED');
    const end = await rig.control.message('tunnel_closed', (m) => m.tunnel === grant.tunnel);
    t.is(end.reason, `${kind}_test`);
  }
});

test('enforcement - reaches a tunnel that still waits for its connector', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const slot = await rig.idleSlot();
  const { statement, grant } = rig.grant();
  const client = await rig.client(statement);
  await slot.assignment(); // asked, not answered
  rig.control.pushLog([
    { action: 'revoke', subject: { kind: 'user', id: grant.user }, reason: 'left' },
  ]);
  t.is(await client.closeCode(), 'ERR_TUNNEL_REVOKED');
  await slot.closed;
});

test('enforcement - drops the idle sockets of a revoked connector and takes no more of them', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const slot = await rig.idleSlot();
  rig.control.pushLog([
    {
      action: 'revoke',
      subject: { kind: 'connector', id: rig.authority.connector },
      reason: 'stolen',
    },
  ]);
  t.is(await slot.closeCode(), 'ERR_IDENTITY_REVOKED');
  t.is(await (await rig.slot()).closeCode(), 'ERR_IDENTITY_REVOKED');
});

test('enforcement - closes live sockets when their certificate ends', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const device = await rig.credentials('device', rig.authority.device, { lifeMs: 2_500 });
  const slot = await rig.idleSlot();
  const [client] = await Promise.all([rig.client(rig.grant().statement, device), slot.accept()]);
  const idle = await rig.slot(
    rig.authority.instance,
    await rig.credentials('connector', rig.authority.connector, { lifeMs: 2_500 }),
  );
  t.is(await client.closeCode(), 'ERR_TUNNEL_LEASE_EXPIRED');
  t.is(await slot.closeCode(), 'ERR_TUNNEL_LEASE_EXPIRED');
  t.is(await idle.closeCode(), 'ERR_TUNNEL_LEASE_EXPIRED');
  const end = await rig.control.message('tunnel_closed');
  t.is(end.reason, 'certificate_expired');
});

test('enforcement - loses nobody when the control plane goes away, and tells it what happened', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const first = await rig.tunnel();
  const second = await rig.tunnel();
  const idle = await rig.idleSlot();
  const before = rig.control.received.length;
  rig.control.cut();
  second.client.ws.close(1000);
  await second.connector.closed;
  const since = () => rig.control.received.slice(before);
  await rig.control.until(
    () =>
      since().some((m) => m.type === 'tunnel_closed') && since().some((m) => m.type === 'slots'),
  );
  const hello = since().find((m) => m.type === 'hello');
  // The other one is named too where the line is back before its end.
  t.true(hello?.tunnels.includes(first.grant.tunnel));
  t.like(
    since().find((m) => m.type === 'tunnel_closed'),
    { tunnel: second.grant.tunnel },
  );
  t.like(
    since().find((m) => m.type === 'slots'),
    { idle: 1 },
  );
  first.client.send(Buffer.from('still here'));
  await first.connector.until(() => first.connector.bytes === 10);
  t.is(idle.ws.readyState, idle.ws.OPEN);
});

test('enforcement - tells everybody that it drains', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { client, connector } = await rig.tunnel();
  const idle = await rig.idleSlot();
  await rig.plane.stop();
  for (const end of [client, connector, idle]) t.is(await end.closeCode(), 'ERR_RELAY_DRAINING');
  t.like(await rig.control.message('tunnel_closed'), { code: 'ERR_RELAY_DRAINING' });
  await t.throwsAsync(rig.slot());
});
