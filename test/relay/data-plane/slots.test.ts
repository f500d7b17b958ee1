import test, { type ExecutionContext } from 'ava';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer, type ClientOptions } from 'ws';
import { newId, type InstanceId } from '../../../protocol/index.ts';
import { limits } from '../../../relay/data-plane/limits.ts';
import { Slots } from '../../../relay/data-plane/slots.ts';
import { RelayRig } from '../../support/relay-rig.ts';

/** The accepting end of a plain WebSocket: what a slot does does not depend on TLS. */
async function pairOf(t: ExecutionContext, options: ClientOptions = {}): Promise<WebSocket> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const sockets = new WebSocketServer({ server });
  const { port } = server.address() as AddressInfo;
  const accepted = once(sockets, 'connection') as Promise<[WebSocket]>;
  const client = new WebSocket(`ws://127.0.0.1:${port}`, options);
  client.on('error', () => undefined);
  await once(client, 'open');
  const [socket] = await accepted;
  t.teardown(() => {
    client.terminate();
    sockets.close();
    server.close();
  });
  return socket;
}

test('slots - are tried in turn until one acknowledges', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const silent = await rig.idleSlot();
  const ready = await rig.slot();
  const { statement, grant } = rig.grant();
  const [client, assign] = await Promise.all([rig.client(statement), ready.accept()]);
  t.deepEqual(assign, { type: 'assign', tunnel: grant.tunnel, grant: statement });
  t.is(await silent.closeCode(), 'ERR_HANDSHAKE_TIMEOUT');
  client.send(Buffer.from('hello'));
  await ready.until(() => ready.bytes === 5);
});

test('slots - pass a connector’s refusal on to the client', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const slot = await rig.idleSlot();
  const client = await rig.client(rig.grant().statement);
  const { tunnel } = await slot.assignment();
  slot.answer({ type: 'refused', tunnel, code: 'ERR_LIMIT_TUNNELS' });
  t.is(await client.closeCode(), 'ERR_LIMIT_TUNNELS');
  const end = await rig.control.message('tunnel_closed');
  t.like(end, { tunnel, code: 'ERR_LIMIT_TUNNELS', reason: 'refused_by_connector' });
});

test('slots - count an answer for another tunnel, or in binary, as a connector that does not work', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  for (const answer of [
    JSON.stringify({ type: 'assigned', tunnel: newId('tunnel') }),
    '{}',
    Buffer.alloc(10),
  ]) {
    const slot = await rig.idleSlot();
    const client = await rig.client(rig.grant().statement);
    await slot.assignment();
    slot.send(answer);
    t.is(await client.closeCode(), 'ERR_CONNECTOR_OFFLINE');
    await slot.closed;
  }
});

test('slots - let a tunnel wait for the next one that is dialled', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const client = await rig.client(rig.grant().statement);
  const slot = await rig.slot();
  await slot.accept();
  client.send(Buffer.from('hello'));
  await slot.until(() => slot.bytes === 5);
  t.false(
    rig.control.received.some((m) => m.type === 'slots'),
    'it never was idle',
  );
});

test('slots - none in time means that the connector is offline', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const elsewhere = await rig.idleSlot(newId('instance')); // another process of the connector
  const client = await rig.client(rig.grant().statement);
  t.is(await client.closeCode(), 'ERR_CONNECTOR_OFFLINE');
  t.is(elsewhere.texts.length, 0);
});

test('slots - of a connector’s older process die when a newer one appears, and stay out', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const newer = newId('instance');
  const { client, connector } = await rig.tunnel();
  const old = await rig.idleSlot();
  const fresh = await rig.idleSlot(newer);
  t.is(await old.closeCode(), 'ERR_RELAY_UNAVAILABLE');
  t.is(await (await rig.slot()).closeCode(), 'ERR_RELAY_UNAVAILABLE');
  t.is(fresh.ws.readyState, fresh.ws.OPEN);
  // A tunnel depends on its lease alone.
  client.send(Buffer.from('hello'));
  await connector.until(() => connector.bytes === 5);
});

test('slots - an older process that came first after a restart gives way once it is driven off', async (t) => {
  const [newer, older] = [newId('instance'), newId('instance')];
  const slots = new Slots({ onIdleChange: () => undefined });
  const connector = newId('connector');
  const add = async (instance: InstanceId, afterMs = 0): Promise<WebSocket> => {
    const server = await pairOf(t);
    const from = { connector, instance, certificateUntilMs: Infinity };
    slots.add(server, from, performance.now() + afterMs);
    return server;
  };
  await add(newer);
  const wrong = await add(older);
  await t.throwsAsync(add(newer), { code: 'ERR_RELAY_UNAVAILABLE' });
  const gone = once(wrong, 'close');
  wrong.terminate();
  await gone;
  await t.throwsAsync(add(newer), { code: 'ERR_RELAY_UNAVAILABLE' });
  await t.notThrowsAsync(add(newer, limits.instanceGoneMs));
});

test('slots - one that fell silent is given up, at both ends', async (t) => {
  const slots = new Slots({ onIdleChange: () => undefined });
  const server = await pairOf(t, { autoPong: false });
  const gone = once(server, 'close');
  const from = {
    connector: newId('connector'),
    instance: newId('instance'),
    certificateUntilMs: Infinity,
  };
  slots.add(server, from, 0);
  let nowMs = 0;
  for (; nowMs < 8_500; nowMs += limits.tickMs) slots.tick(nowMs, undefined);
  t.is(server.readyState, server.OPEN);
  slots.tick(nowMs, undefined);
  await gone;
  t.is(slots.counts().length, 0);
});

test('slots - an idle one that speaks is closed', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const slot = await rig.idleSlot();
  slot.send(Buffer.from('anything'));
  t.is(await slot.closeCode(), 'ERR_MESSAGE_UNEXPECTED');
  await rig.control.message('slots', ({ idle }) => idle === 0);
});

test('slots - are told to the control plane when they turn from or to none', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { connector, instance } = rig.authority;
  const one = await rig.idleSlot();
  const two = await rig.slot();
  two.ws.close();
  await two.closed;
  one.ws.close();
  await rig.control.message('slots', ({ idle }) => idle === 0);
  t.deepEqual(
    rig.control.received.filter((m) => m.type === 'slots'),
    [1, 0].map((idle) => ({ type: 'slots', connector, instance, idle })),
  );
});
