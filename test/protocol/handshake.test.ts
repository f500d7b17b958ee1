import test from 'ava';
import {
  verifyGrantAtConnector,
  verifyGrantAtRelay,
  type Grant,
  type VerifiedGrant,
} from '../../protocol/grant.ts';
import {
  ClientHandshake,
  ConnectorHandshake,
  encodePrologue,
  handshakeMessageBytes,
  maxHandshakeMessage3Bytes,
  type ProvedClient,
  type Transport,
} from '../../protocol/handshake.ts';
import { newId } from '../../protocol/id.ts';
import {
  NoiseInitiator,
  NoiseResponder,
  newNoiseKeyPair,
  type AuthenticatedPeer,
  type NoiseKeyPair,
} from '../../protocol/noise-xk.ts';
import { rawPublicKey } from '../../protocol/statement.ts';
import { flipByte, rawBase64, TestAuthority, testNowMs } from '../support/authority.ts';

const authority = new TestAuthority();
const failed = { code: 'ERR_HANDSHAKE_FAILED' };
const misuse = { code: 'ERR_INTERNAL' };

function newClient(permit = authority.permit(), deviceKeys: NoiseKeyPair = authority.deviceKeys) {
  const { bundle, relay } = authority;
  return new ClientHandshake({ permit, rootId: bundle.rootId, relay, deviceKeys });
}

function newConnector(grantStatement: string, connectorKeys = authority.connectorKeys) {
  const { bundle, relay } = authority;
  return new ConnectorHandshake({ grantStatement, bundle, relay, connectorKeys });
}

function verifyAtConnector(proved: ProvedClient): VerifiedGrant<'connector'> {
  const { bundle, connector, instance } = authority;
  const { peerStatic, grantStatement } = proved;
  const at = { bundle, connector, instance, peerStatic, nowMs: testNowMs };
  return verifyGrantAtConnector(grantStatement, at);
}

/** Runs a handshake to its end. */
function meet(permit = authority.permit()) {
  const client = newClient(permit);
  const connector = newConnector(permit.grant.statement);
  const message1 = client.message1();
  const message2 = connector.receiveMessage1(message1);
  const { message3, transport } = client.receiveMessage2(message2);
  const proved = connector.receiveMessage3(message3);
  return { permit, client, connector, message1, message2, message3, transport, proved };
}

test('ClientHandshake and ConnectorHandshake - end with the same hash, secrets and records both ways', (t) => {
  const { permit, message1, message2, message3, transport, proved } = meet();
  t.is(message1.length, handshakeMessageBytes);
  t.is(message2.length, handshakeMessageBytes);
  t.true(message3.length <= maxHandshakeMessage3Bytes);
  t.is(proved.grantStatement, permit.grant.statement);
  t.is(proved.rosterStatement, permit.rosterStatement);
  t.deepEqual(Buffer.from(proved.peerStatic), rawPublicKey(authority.deviceKeys.publicKey));
  const atConnector = proved.admit(verifyAtConnector(proved));
  t.deepEqual(atConnector.handshakeHash, transport.handshakeHash);
  t.deepEqual(atConnector.exportSecret('resume'), transport.exportSecret('resume'));
  for (const [from, to] of [
    [transport, atConnector],
    [atConnector, transport],
  ] as const) {
    for (const text of ['first', 'second', '']) {
      const record = Buffer.concat(from.sealer.seal([Buffer.from(text)]));
      t.is(to.opener.open(record).toString(), text);
    }
  }
});

test('Transport - every byte of the first three records each way flipped in turn gives no content', (t) => {
  const open = (from: Transport, to: Transport, victim: number, index: number) => {
    const records = [0, 1, 2].map(() => Buffer.concat(from.sealer.seal([Buffer.alloc(24, 0xaa)])));
    records.slice(0, victim).forEach((record) => to.opener.open(record));
    const record = records[victim] ?? Buffer.alloc(0);
    t.is(record.length, 40);
    t.throws(() => to.opener.open(flipByte(record, index)), { code: 'ERR_RECORD_TAMPERED' });
  };
  for (let victim = 0; victim < 3; victim++) {
    for (let index = 0; index < 40; index++) {
      const { transport, proved } = meet();
      const atConnector = proved.admit(verifyAtConnector(proved));
      open(transport, atConnector, victim, index);
      open(atConnector, transport, victim, index);
    }
  }
});

test('Transport - a record sent back to its sender is refused', (t) => {
  const { transport } = meet();
  const record = Buffer.concat(transport.sealer.seal([Buffer.from('mine')]));
  t.throws(() => transport.opener.open(record), { code: 'ERR_RECORD_TAMPERED' });
});

test('ConnectorHandshake - every byte of messages 1 and 3 flipped in turn is refused', (t) => {
  const permit = authority.permit();
  for (let index = 0; index < handshakeMessageBytes; index++) {
    const client = newClient(permit);
    const connector = newConnector(permit.grant.statement);
    const message1 = flipByte(client.message1(), index);
    t.throws(() => connector.receiveMessage1(message1), failed);
    t.throws(() => connector.receiveMessage1(client.message1()), misuse);
  }
  for (let index = 0, length = 1; index < length; index++) {
    const client = newClient(permit);
    const connector = newConnector(permit.grant.statement);
    const { message3 } = client.receiveMessage2(connector.receiveMessage1(client.message1()));
    length = message3.length;
    t.true(length > 1_500);
    t.throws(() => connector.receiveMessage3(flipByte(message3, index)), failed);
    t.throws(() => connector.receiveMessage3(message3), misuse);
  }
});

test('ClientHandshake - every byte of message 2 flipped in turn is refused', (t) => {
  const permit = authority.permit();
  for (let index = 0; index < handshakeMessageBytes; index++) {
    const client = newClient(permit);
    const message2 = newConnector(permit.grant.statement).receiveMessage1(client.message1());
    t.throws(() => client.receiveMessage2(flipByte(message2, index)), failed);
    t.throws(() => client.receiveMessage2(message2), misuse);
  }
});

test('ClientHandshake and ConnectorHandshake - steps out of order or repeated are misuse', (t) => {
  const { permit, client, connector, message1, message2, message3 } = meet();
  t.throws(() => client.message1(), misuse);
  t.throws(() => client.receiveMessage2(message2), misuse);
  t.throws(() => connector.receiveMessage1(message1), misuse);
  t.throws(() => connector.receiveMessage3(message3), misuse);
  t.throws(() => newClient(permit).receiveMessage2(message2), misuse);
  t.throws(() => newConnector(permit.grant.statement).receiveMessage3(message3), misuse);
});

test('ConnectorHandshake - refuses a payload in message 1 even from the rightful client', (t) => {
  const permit = authority.permit();
  const { bundle, relay } = authority;
  const path = { rootId: bundle.rootId, relay, grantStatement: permit.grant.statement };
  const noise = new NoiseInitiator({
    prologue: encodePrologue(permit.grant, path),
    staticKeys: authority.deviceKeys,
    remoteStatic: permit.connectorKey,
  });
  const message1 = noise.writeMessage1(Buffer.from('early'));
  t.throws(() => newConnector(permit.grant.statement).receiveMessage1(message1), failed);
});

/** A client that proves its key honestly and puts what it likes into message 3. */
function sendPayload(payload: string | Buffer): () => ProvedClient {
  const permit = authority.permit();
  const { bundle, relay } = authority;
  const path = { rootId: bundle.rootId, relay, grantStatement: permit.grant.statement };
  const noise = new NoiseInitiator({
    prologue: encodePrologue(permit.grant, path),
    staticKeys: authority.deviceKeys,
    remoteStatic: permit.connectorKey,
  });
  const connector = newConnector(permit.grant.statement);
  noise.readMessage2(connector.receiveMessage1(noise.writeMessage1(Buffer.alloc(0))));
  const message3 = noise.writeMessage3(Buffer.from(payload));
  return () => connector.receiveMessage3(message3);
}

test('ConnectorHandshake - refuses another grant in message 3 than the relay handed over', (t) => {
  const payload = JSON.stringify({ grant: authority.signGrant(), roster: authority.signRoster() });
  t.throws(sendPayload(payload), { code: 'ERR_GRANT_MISMATCH' });
});

test('ConnectorHandshake - refuses a payload of message 3 that is not grant and roster', (t) => {
  const malformed = { code: 'ERR_MESSAGE_MALFORMED' };
  t.throws(sendPayload(''), malformed);
  t.throws(sendPayload('{}'), malformed);
  t.throws(sendPayload('{"roster":"","grant":""}'), malformed);
  t.throws(sendPayload('{"grant":"","roster":"","more":1}'), malformed);
  t.throws(sendPayload(Buffer.from([0xff])), malformed);
  t.throws(sendPayload(JSON.stringify({ grant: 'x'.repeat(4_097), roster: '' })), malformed);
  t.throws(sendPayload('x'.repeat(30_000)), { code: 'ERR_MESSAGE_TOO_LARGE' });
});

const members: Record<string, (grant: Grant) => Partial<Grant>> = {
  version: () => ({ version: 99 }),
  tunnel: () => ({ tunnel: newId('tunnel') }),
  generation: ({ generation }) => ({ generation: generation + 2 ** 40 }),
  app: () => ({ app: newId('app') }),
  connector: () => ({ connector: newId('connector') }),
};

for (const [member, change] of Object.entries(members)) {
  test(`encodePrologue - another ${member} makes the handshake fail`, (t) => {
    const grant = authority.grant();
    const path = { rootId: authority.bundle.rootId, relay: authority.relay, grantStatement: 'x' };
    const changed = encodePrologue({ ...grant, ...change(grant) }, path);
    t.notDeepEqual(changed, encodePrologue(grant, path));
    t.throws(() => meetUnder(encodePrologue(grant, path), changed), failed);
  });
}

for (const [member, change] of Object.entries({
  'root id': { rootId: 'ab'.repeat(32) },
  relay: { relay: newId('relay') },
  'grant statement': { grantStatement: 'y' },
})) {
  test(`encodePrologue - another ${member} makes the handshake fail`, (t) => {
    const grant = authority.grant();
    const path = { rootId: authority.bundle.rootId, relay: authority.relay, grantStatement: 'x' };
    const changed = encodePrologue(grant, { ...path, ...change });
    t.notDeepEqual(changed, encodePrologue(grant, path));
    t.throws(() => meetUnder(encodePrologue(grant, path), changed), failed);
  });
}

function meetUnder(atClient: Buffer, atConnector: Buffer): void {
  const keys = authority.connectorKeys;
  const staticKeys = authority.deviceKeys;
  const a = new NoiseInitiator({ prologue: atClient, staticKeys, remoteStatic: keys.publicKey });
  new NoiseResponder({ prologue: atConnector, staticKeys: keys }).readMessage1(
    a.writeMessage1(Buffer.alloc(0)),
  );
}

test('encodePrologue - is the layout that it states', (t) => {
  const grant = authority.grant({ generation: 258 });
  const { bundle, relay } = authority;
  const prologue = encodePrologue(grant, { rootId: bundle.rootId, relay, grantStatement: 'x' });
  const id = (text: string) => `001e${Buffer.from(text).toString('hex')}`;
  t.is(
    prologue.toString('hex'),
    [
      `000b${Buffer.from('ztna-tunnel').toString('hex')}`,
      '000400000001',
      `0020${bundle.rootId}`,
      id(grant.tunnel),
      '00080000000000000102',
      id(grant.app),
      id(grant.connector),
      id(relay),
      '00202d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881', // SHA-256 of "x"
    ].join(''),
  );
});

test('encodePrologue - refuses a root id that is not one', (t) => {
  const path = { relay: authority.relay, grantStatement: 'x' };
  for (const rootId of ['', 'ab'.repeat(31), 'ab'.repeat(31) + 'zz', 'AB'.repeat(32)]) {
    t.throws(() => encodePrologue(authority.grant(), { ...path, rootId }), misuse);
  }
});

test('ConnectorHandshake - a connector with another key than the roster names is refused', (t) => {
  const permit = authority.permit();
  const impostor = newConnector(permit.grant.statement, newNoiseKeyPair());
  t.throws(() => impostor.receiveMessage1(newClient(permit).message1()), failed);
});

test('ConnectorHandshake - refuses a grant by another key before any message', (t) => {
  const forged = authority.signGrant({}, authority.rosterKey);
  t.throws(() => newConnector(forged), { code: 'ERR_STATEMENT_REFUSED' });
  t.throws(() => newConnector(authority.signGrant({ version: 99 })), {
    code: 'ERR_HANDSHAKE_VERSION',
  });
});

test('ClientHandshake and ConnectorHandshake - refuse a relay that the grant does not name', (t) => {
  const permit = authority.permit({ relays: [newId('relay')] });
  t.throws(() => newClient(permit), { code: 'ERR_GRANT_MISMATCH' });
  t.throws(() => newConnector(permit.grant.statement), { code: 'ERR_GRANT_MISMATCH' });
});

test('verifyGrantAtConnector - refuses a client that holds another device key than its grant says', (t) => {
  const permit = authority.permit();
  const thief = newClient(permit, newNoiseKeyPair());
  const connector = newConnector(permit.grant.statement);
  const { message3 } = thief.receiveMessage2(connector.receiveMessage1(thief.message1()));
  const proved = connector.receiveMessage3(message3);
  t.throws(() => verifyAtConnector(proved), { code: 'ERR_GRANT_MISMATCH' });
});

test('ProvedClient - gives its transport only once, and only against its own verified grant', (t) => {
  const first = meet();
  const second = meet();
  const grant = verifyAtConnector(first.proved);
  t.throws(() => second.proved.admit(grant), { code: 'ERR_GRANT_MISMATCH' });
  const posed = { ...grant, deviceKey: rawBase64(newNoiseKeyPair()) } as typeof grant;
  t.throws(() => first.proved.admit(posed), { code: 'ERR_GRANT_MISMATCH' });
  t.truthy(first.proved.admit(grant));
  t.throws(() => first.proved.admit(grant), misuse);
});

test('types - opening a tunnel without a verified grant does not compile', (t) => {
  const { proved, permit, transport } = meet();
  const { bundle, relay, connector, instance } = authority;
  const plain: Grant = authority.grant();
  // @ts-expect-error -- a grant that nobody verified
  t.throws(() => proved.admit(plain));
  // @ts-expect-error -- the client's own check is not the connector's
  const client: VerifiedGrant<'connector'> = permit.grant;
  // @ts-expect-error -- nor is the data plane's
  const relayed: VerifiedGrant<'connector'> = verifyGrantAtRelay(permit.grant.statement, {
    bundle,
    relay,
    nowMs: testNowMs,
  });
  // @ts-expect-error -- no transport before admission
  const early: unknown = proved.transport;
  // @ts-expect-error -- a transport cannot be put together by hand
  const handmade: Transport = {
    sealer: transport.sealer,
    opener: transport.opener,
    handshakeHash: transport.handshakeHash,
    exportSecret: transport.exportSecret,
  };
  const peerStatic = rawPublicKey(authority.deviceKeys.publicKey);
  // @ts-expect-error -- bytes that no handshake has proved to be the peer's key
  const at: { peerStatic: AuthenticatedPeer } = { peerStatic };
  const elsewhere = { bundle, connector, instance, nowMs: testNowMs, ...at };
  t.truthy(verifyGrantAtConnector(permit.grant.statement, elsewhere));
  t.is(early, undefined);
  t.truthy([client, relayed, handmade]);
});
