import test from 'ava';
import {
  grantHeader,
  instanceHeader,
  newId,
  slotPath,
  tunnelPath,
  wireVersion,
  type ErrorCode,
  type Grant,
} from '../../../protocol/index.ts';
import { newSigningKey } from '../../support/authority.ts';
import { RelayRig } from '../../support/relay-rig.ts';

test('admission - refuses every grant that is not for this device, this relay and now', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const nowMs = Date.now();
  const cases: [ErrorCode, Partial<Grant>][] = [
    ['ERR_GRANT_EXPIRED', { issuedAtMs: nowMs - 61_000, expiresAtMs: nowMs - 1_000 }],
    ['ERR_GRANT_REFUSED', { issuedAtMs: nowMs, expiresAtMs: nowMs + 60_001 }],
    ['ERR_GRANT_MISMATCH', { device: newId('device') }],
    ['ERR_GRANT_MISMATCH', { relays: [newId('relay')] }],
    ['ERR_HANDSHAKE_VERSION', { version: wireVersion + 1 }],
  ];
  for (const [code, changes] of cases) {
    const client = await rig.client(rig.grant(changes).statement);
    t.is(await client.closeCode(), code);
    const refused = await rig.control.message('admission_refused', (m) => m.code === code);
    t.like(refused, { peer: rig.authority.device, address: '127.0.0.1' });
  }
});

test('admission - refuses a grant by another key, a tampered one and none at all', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { statement, grant } = rig.grant();
  const forged = rig.authority.signGrant(grant, newSigningKey());
  const [kind, key, payload = '', signature] = statement.split('.');
  const tampered = [kind, key, `${payload.slice(0, -2)}AA`, signature].join('.');
  for (const text of [forged, tampered, statement.replace('grant.', 'lease.'), 'nonsense']) {
    t.is(await (await rig.client(text)).closeCode(), 'ERR_STATEMENT_REFUSED');
  }
  const without = await rig.dial(tunnelPath, rig.device, {});
  t.is(await without.closeCode(), 'ERR_GRANT_REFUSED');
});

test('admission - takes a grant once, also when both uses come together', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const slots = await Promise.all([rig.idleSlot(), rig.idleSlot()]);
  for (const slot of slots) slot.accept().catch(() => undefined);
  const { statement } = rig.grant();
  const clients = await Promise.all([
    rig.client(statement),
    rig.client(statement),
    rig.client(statement),
  ]);
  const codes: string[] = [];
  for (const client of clients) void client.closeCode().then((code) => codes.push(code));
  await rig.control.until(
    () =>
      codes.length === 2 ||
      rig.control.received.filter((m) => m.type === 'admission_refused').length === 2,
  );
  await Promise.race(clients.map(({ closed }) => closed));
  const again = await rig.client(statement);
  t.is(await again.closeCode(), 'ERR_GRANT_USED');
  t.deepEqual(new Set(codes), new Set(['ERR_GRANT_USED']));
  t.is(codes.length, 2);
});

test('admission - gives each path to one role', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { statement } = rig.grant();
  const instance = { [instanceHeader]: rig.authority.instance };
  const relay = await rig.credentials('data-plane', newId('relay'));
  const ends = await Promise.all([
    rig.dial(tunnelPath, rig.connector, { [grantHeader]: statement }),
    rig.dial(tunnelPath, relay, { [grantHeader]: statement }),
    rig.dial(slotPath, rig.device, instance),
    rig.dial(slotPath, relay, instance),
  ]);
  for (const end of ends) t.is(await end.closeCode(), 'ERR_IDENTITY_ROLE');
  const elsewhere = await rig.dial('/v1/other', rig.device, {});
  t.is(await elsewhere.closeCode(), 'ERR_MESSAGE_UNEXPECTED');
  const nameless = await rig.dial(slotPath, rig.connector, {});
  t.is(await nameless.closeCode(), 'ERR_MESSAGE_MALFORMED');
});

test('admission - admits nobody before it knows the time', async (t) => {
  const rig = await RelayRig.start({ silent: 'time' });
  t.teardown(() => rig.stop());
  await rig.control.message('hello');
  t.is(await (await rig.client(rig.grant().statement)).closeCode(), 'ERR_RELAY_UNAVAILABLE');
  t.is(await (await rig.slot()).closeCode(), 'ERR_RELAY_UNAVAILABLE');
});

test('admission - admits nobody before it knows the revocation log', async (t) => {
  const rig = await RelayRig.start({ silent: 'log' });
  t.teardown(() => rig.stop());
  await rig.control.message('hello');
  t.is(await (await rig.client(rig.grant().statement)).closeCode(), 'ERR_RELAY_UNAVAILABLE');
  t.is(await (await rig.slot()).closeCode(), 'ERR_RELAY_UNAVAILABLE');
});

test('admission - waits for the log that a grant was decided under, then judges by it', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const slot = await rig.idleSlot();
  // Made after an entry about somebody else that this relay has not heard of yet.
  const fine = rig.grant({ position: 1 });
  const [client] = await Promise.all([
    rig.client(fine.statement),
    slot.accept(),
    Promise.resolve().then(() => {
      rig.control.pushLog([
        { action: 'revoke', subject: { kind: 'user', id: newId('user') }, reason: 'left' },
      ]);
    }),
  ]);
  client.send(Buffer.from('hello'));
  await slot.until(() => slot.bytes === 5);

  const ahead = await rig.client(rig.grant({ position: 9 }).statement);
  t.is(await ahead.closeCode(), 'ERR_RELAY_UNAVAILABLE');

  const { statement, grant } = rig.grant();
  rig.control.pushLog([
    { action: 'revoke', subject: { kind: 'session', id: grant.session }, reason: 'signed_out' },
  ]);
  const late = await rig.client(statement);
  const code = await late.closeCode();
  t.is(code, 'ERR_GRANT_REVOKED');
  const refused = await rig.control.message('admission_refused', (m) => m.code === code);
  t.is(refused.reason, 'signed_out');
});

test('admission - never reads a message larger than a record', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { client, connector } = await rig.tunnel();
  client.send(Buffer.alloc(65_536));
  t.is((await client.closed).code, 1009);
  await connector.closed;
  t.is(connector.bytes, 0);
});

test('admission - refuses a grant of an older path of the tunnel, and replaces it by a newer', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { client, grant } = await rig.tunnel({ generation: 2 });
  const same = rig.grant({ ...grant, id: newId('grant') });
  t.is(await (await rig.client(same.statement)).closeCode(), 'ERR_GRANT_MISMATCH');
  const next = await rig.tunnel({ tunnel: grant.tunnel, generation: 3 });
  t.is(await client.closeCode(), 'ERR_TUNNEL_PATH_LOST');
  next.client.send(Buffer.from('on'));
  await next.connector.until(() => next.connector.bytes === 2);
});
