import test, { type ExecutionContext } from 'ava';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';
import { ConnectorHandshake, ZtnaError } from '../../protocol/index.ts';
import { proveClient } from '../../connector/prove-client.ts';
import { Parties } from './fixture.ts';

const parties = new Parties();

/** Both ends of a WebSocket, and both sides of a handshake under one grant. */
async function ends(t: ExecutionContext) {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const near = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const [[far]] = (await Promise.all([once(server, 'connection'), once(near, 'open')])) as [
    [WebSocket],
    unknown,
  ];
  t.teardown(() => {
    near.terminate();
    far.terminate();
    server.close();
  });
  const statement = parties.signGrant();
  const handshake = new ConnectorHandshake({
    grantStatement: statement,
    bundle: parties.bundle,
    relay: parties.relay,
    connectorKeys: parties.connectorKeys,
  });
  return { near, far, handshake, client: parties.clientHandshake(statement) };
}

test('proveClient - proves the client and holds what was sent right behind message 3', async (t) => {
  const { near, far, handshake, client } = await ends(t);
  const proving = proveClient(near, handshake);
  far.send(client.message1());
  const [message2] = (await once(far, 'message')) as [Buffer];
  far.send(client.receiveMessage2(message2).message3);
  far.send(Buffer.from('record 1'));
  far.send(Buffer.from('record 2'));
  const { client: proved, held } = await proving;
  t.deepEqual(Buffer.from(proved.peerStatic), parties.rawDeviceKey());
  t.true(near.isPaused);
  const rest: Buffer[] = [...held.take()];
  near.on('message', (data: Buffer) => rest.push(data));
  near.resume();
  while (rest.length < 2) await once(near, 'message');
  t.deepEqual(
    rest.map((data) => data.toString()),
    ['record 1', 'record 2'],
  );
});

for (const [title, stall] of [
  ['says nothing', () => undefined],
  ['stops after message 2', (far: WebSocket, message1: Buffer) => far.send(message1)],
] as const) {
  test(`proveClient - gives up a client that ${title}`, async (t) => {
    const { near, far, handshake, client } = await ends(t);
    const proving = proveClient(near, handshake, 50);
    stall(far, client.message1());
    const error = await t.throwsAsync(proving, { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_HANDSHAKE_TIMEOUT');
  });
}

test('proveClient - notices that the client left', async (t) => {
  const { near, far, handshake } = await ends(t);
  const proving = proveClient(near, handshake);
  far.close();
  const error = await t.throwsAsync(proving, { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_TUNNEL_PATH_LOST');
});

test('proveClient - takes no text for a handshake', async (t) => {
  const { near, far, handshake } = await ends(t);
  const proving = proveClient(near, handshake);
  far.send('hello');
  const error = await t.throwsAsync(proving, { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_MESSAGE_UNEXPECTED');
});

test('proveClient - refuses a first message of the wrong size', async (t) => {
  const { near, far, handshake } = await ends(t);
  const proving = proveClient(near, handshake);
  far.send(Buffer.alloc(47));
  const error = await t.throwsAsync(proving, { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_HANDSHAKE_FAILED');
});
