import test from 'ava';
import {
  suspendableVersion,
  toCloseFrame,
  verifyingKey,
  verifyReceipt,
  ZtnaError,
  type Grant,
} from '../../../protocol/index.ts';
import { RelayRig, type DataEnd } from '../../support/relay-rig.ts';

/** Another path of the tunnel of `first`. */
async function nextPath(
  rig: RelayRig,
  first: Grant,
  generation: number,
): Promise<{ client: DataEnd; connector: DataEnd; grant: Grant }> {
  const { tunnel, user, session, device, app, version } = first;
  return rig.tunnel({ tunnel, user, session, device, app, version, generation });
}

async function flows({ client, connector }: { client: DataEnd; connector: DataEnd }) {
  const before = connector.bytes;
  client.send(Buffer.from('hello'));
  await connector.until(() => connector.bytes === before + 5);
}

test('paths - the old one goes on until its ends close it, although the next carries bytes', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const first = await rig.tunnel({ version: 2 });
  const second = await nextPath(rig, first.grant, 2);
  await flows(first);
  await flows(second);
  await rig.control.message('tunnel_joined', ({ generation }) => generation === 2);
  const joined = rig.control.received.filter((m) => m.type === 'tunnel_joined');
  t.deepEqual(
    joined.map((m) => [m.tunnel, m.generation]),
    [
      [first.grant.tunnel, 1],
      [first.grant.tunnel, 2],
    ],
  );
  first.connector.ws.close(1000);
  t.is(await first.client.closeCode(), 'ERR_TUNNEL_CLOSED');
  await flows(second);
});

test('paths - a renewal and an entry of the log reach both', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const { connector } = rig.authority;
  const first = await rig.tunnel({ version: 2, untilMs: Date.now() + 2_000, sequence: [1, 1] });
  const second = await nextPath(rig, first.grant, 2);
  rig.control.pushLeases({
    connector,
    entries: [[first.grant.tunnel, [1_000, 1], Date.now() + 60_000]],
  });
  await new Promise((resolve) => setTimeout(resolve, 2_500)); // past the first lease
  await flows(first);
  await flows(second);
  const subject = { kind: 'tunnel', id: first.grant.tunnel } as const;
  rig.control.pushLog([{ action: 'revoke', subject, reason: 'test' }]);
  for (const { client, connector: end } of [first, second]) {
    t.is(await client.closeCode(), 'ERR_TUNNEL_REVOKED');
    t.is(await end.closeCode(), 'ERR_TUNNEL_REVOKED');
  }
});

test('paths - there are two at most, and a lower generation gets none', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const first = await rig.tunnel({ version: 2 });
  const third = await nextPath(rig, first.grant, 3);
  for (const path of [first, third]) await flows(path);
  const { tunnel, user, session, device, app } = first.grant;
  const low = { version: 2, tunnel, user, session, device, app };
  for (const generation of [1, 2, 3]) {
    const { statement } = rig.grant({ ...low, generation });
    t.is(await (await rig.client(statement)).closeCode(), 'ERR_GRANT_MISMATCH');
  }
  const fourth = await nextPath(rig, first.grant, 4);
  t.is(await first.client.closeCode(), 'ERR_TUNNEL_PATH_LOST');
  await flows(third);
  await flows(fourth);
  // One that has not met its other end yet gives way before one that carries bytes.
  const waiting = await rig.client(rig.grant({ ...low, generation: 5 }).statement);
  t.is(await third.client.closeCode(), 'ERR_TUNNEL_PATH_LOST');
  await rig.client(rig.grant({ ...low, generation: 6 }).statement);
  t.is(await waiting.closeCode(), 'ERR_TUNNEL_PATH_LOST');
  await flows(fourth);
});

test('paths - of a tunnel of version 1 there is one: the next takes its place', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const first = await rig.tunnel({ version: 1 });
  const second = await nextPath(rig, first.grant, 2);
  t.is(await first.client.closeCode(), 'ERR_TUNNEL_PATH_LOST');
  await flows(second);
});

test('paths - an end that is the first to hear that access is over leaves the relay its receipt', async (t) => {
  const rig = await RelayRig.start();
  t.teardown(() => rig.stop());
  const first = await rig.tunnel({ version: suspendableVersion });
  const { tunnel } = first.grant;
  await flows(first);
  first.client.ws.close(1000); // which says nothing of access
  await rig.control.message('tunnel_closed', (m) => m.tunnel === tunnel);
  const second = await nextPath(rig, first.grant, 2);
  await flows(second);
  const { closeCode, text } = toCloseFrame(new ZtnaError('ERR_TUNNEL_SUSPENDED'));
  second.connector.ws.close(closeCode, text);
  t.is(await second.client.closeCode(), 'ERR_TUNNEL_SUSPENDED');
  const subject = { kind: 'tunnel', id: tunnel } as const;
  rig.control.pushLog([{ action: 'suspend', subject, reason: 'posture_unhealthy' }]);
  rig.control.pushLog([{ action: 'revoke', subject, reason: 'laptop_lost' }]); // cuts nothing more
  const other = await rig.tunnel({ version: suspendableVersion });
  const last = { kind: 'tunnel', id: other.grant.tunnel } as const;
  rig.control.pushLog([{ action: 'revoke', subject: last, reason: 'last' }]);

  const { key } = await rig.control.message('receipt_key');
  const receipts = () =>
    rig.control.received
      .filter((message) => message.type === 'receipt')
      .map(({ statement }) =>
        verifyReceipt(statement, verifyingKey(Buffer.from(key, 'base64url'))),
      );
  await rig.control.until(() => receipts().some(({ reason }) => reason === 'last'));
  t.deepEqual(
    receipts().map((receipt) => [
      receipt.tunnel,
      receipt.generation,
      receipt.action,
      receipt.bytesUp,
    ]),
    [
      [tunnel, 2, 'suspend', 5],
      [other.grant.tunnel, 1, 'revoke', 0],
    ],
  );
});
