import test from 'ava';
import { decodeMessage, newId, toTunnelEnd } from '../../../protocol/index.ts';
import { RelayRig, type DataEnd } from '../../support/relay-rig.ts';

const longMs = 100_000;

/** A relay that knows of another one. */
async function startWithOther(): Promise<{ rig: RelayRig; other: ReturnType<typeof newOther> }> {
  const rig = await RelayRig.start();
  const other = newOther();
  rig.control.pushRelays(1, [{ id: other }]);
  return { rig, other };
}

function newOther() {
  return newId('relay');
}

/** A tunnel whose ends have met. */
async function joined(rig: RelayRig, version: number) {
  const ends = await rig.tunnel({ version });
  await rig.control.message('tunnel_joined', ({ tunnel }) => tunnel === ends.grant.tunnel);
  return ends;
}

/** Resolves once the end has been told to move. */
async function told(end: DataEnd): Promise<void> {
  const isDrain = (text: string) => text.includes('"drain"');
  await end.until(() => end.texts.some(isDrain));
  decodeMessage(toTunnelEnd, end.texts.find(isDrain) ?? '');
}

test('drain - tells everyone to move, takes nothing new, and is over once the last tunnel has left', async (t) => {
  const { rig } = await startWithOther();
  t.teardown(() => rig.stop());
  const first = await joined(rig, 2);
  const second = await joined(rig, 2);
  const idle = await rig.idleSlot();
  let isOver = false;
  const draining = rig.plane.drain(longMs).then(() => {
    isOver = true;
  });
  await rig.control.message('draining');
  await told(idle);
  t.is(await idle.closeCode(), 'ERR_RELAY_DRAINING');
  for (const end of [first.client, first.connector, second.client, second.connector]) {
    await told(end);
  }
  t.is(await (await rig.client(rig.grant().statement)).closeCode(), 'ERR_RELAY_DRAINING');
  t.is(await (await rig.slot()).closeCode(), 'ERR_RELAY_DRAINING');
  // What is here goes on meanwhile.
  first.client.send(Buffer.from('hello'));
  await first.connector.until(() => first.connector.bytes === 5);
  first.connector.ws.close(1000);
  await first.client.closed;
  t.false(isOver);
  second.client.ws.close(1000);
  await draining;
  t.is(rig.log.filter((line) => line.includes('"drained"')).length, 1);
});

test('drain - closes what has not left in time, and what cannot leave is not told to', async (t) => {
  const { rig } = await startWithOther();
  t.teardown(() => rig.stop());
  const old = await joined(rig, 1);
  const stuck = await joined(rig, 2);
  await rig.plane.drain(500);
  for (const { client, connector } of [old, stuck]) {
    t.is(await client.closeCode(), 'ERR_RELAY_DRAINING');
    t.is(await connector.closeCode(), 'ERR_RELAY_DRAINING');
  }
  const waits = rig.log.find((line) => line.includes('"drain_waits"')) ?? '{}';
  t.like(JSON.parse(waits), { tunnels: 2, reason: 'tunnels_not_moved' });
  t.is(old.client.texts.length, 0);
  t.is(stuck.client.texts.length, 1);
  const ends = rig.control.received.filter((m) => m.type === 'tunnel_closed');
  t.deepEqual(
    ends.map(({ code }) => code),
    ['ERR_RELAY_DRAINING', 'ERR_RELAY_DRAINING'],
  );
});

test('drain - where there is no other relay nobody is waited for', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  rig.control.pushRelays(1, []);
  const { client, connector } = await joined(rig, 2);
  await rig.plane.drain(longMs);
  t.is(client.texts.length, 1);
  t.is(await client.closeCode(), 'ERR_RELAY_DRAINING');
  t.is(await connector.closeCode(), 'ERR_RELAY_DRAINING');
});

test('drain - nobody is waited for once the last other relay drains as well', async (t) => {
  const { rig, other } = await startWithOther();
  t.teardown(() => rig.stop());
  const { client } = await joined(rig, 2);
  const draining = rig.plane.drain(longMs);
  await told(client);
  rig.control.pushRelays(2, [{ id: other, isDraining: true }]);
  await draining;
  t.is(await client.closeCode(), 'ERR_RELAY_DRAINING');
});

test('drain - a tunnel that still waits for its connector is sent elsewhere at once', async (t) => {
  const { rig } = await startWithOther();
  t.teardown(() => rig.stop());
  const slot = await rig.idleSlot();
  const client = await rig.client(rig.grant({ version: 2 }).statement);
  await slot.assignment(); // asked, not answered
  await rig.plane.drain(longMs);
  t.is(await client.closeCode(), 'ERR_RELAY_DRAINING');
});

test('drain - a control plane that comes back meanwhile is told again', async (t) => {
  const { rig } = await startWithOther();
  t.teardown(() => rig.stop());
  const { client } = await joined(rig, 2);
  const draining = rig.plane.drain(longMs);
  await rig.control.message('draining');
  const before = rig.control.received.length;
  rig.control.cut();
  await rig.control.until(() =>
    rig.control.received.slice(before).some(({ type }) => type === 'draining'),
  );
  client.ws.close(1000);
  await draining;
  t.pass();
});

test('drain - with nothing to move it is over at once', async (t) => {
  const { rig } = await startWithOther();
  t.teardown(() => rig.stop());
  await rig.plane.drain(longMs);
  t.is(await (await rig.slot()).closeCode(), 'ERR_RELAY_DRAINING');
});
