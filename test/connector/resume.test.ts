import test, { type ExecutionContext } from 'ava';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { newId, newNoiseKeyPair, rawPublicKey } from '../../protocol/index.ts';
import { maxDetachedPerDevice } from '../../connector/limits.ts';
import { pattern } from '../support/tunnel-pair.ts';
import { startConnector, type Running } from './running-connector.ts';
import { appOutcome } from './test-app.ts';
import type { FakeClient, FakeStream, ResumeChanges } from './fake-relay.ts';
import type { Socket } from 'node:net';

interface Lasting extends Running {
  readonly client: FakeClient;
  readonly stream: FakeStream;
  /** The app's end of the stream. */
  readonly connection: Socket;
  /** What the app has read. */
  readonly chunks: Buffer[];
}

/** A connector with one tunnel of the second version, with one stream in it. */
async function startLasting(t: ExecutionContext, holdMs = 60_000): Promise<Lasting> {
  const running = await startConnector(t, { version: 2 });
  const client = await running.relay.tunnel({ version: 2, holdMs });
  const arriving = running.app.next();
  const stream = client.open(Buffer.from('x'));
  const connection = await arriving;
  const chunks: Buffer[] = [];
  connection.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(connection, 'data');
  return { ...running, client, stream, connection, chunks };
}

/** Cuts the path, and waits until the control plane has been told. */
async function cut({ relay, client }: Pick<Lasting, 'relay' | 'client'>): Promise<void> {
  client.slot.ws.terminate();
  const { tunnel, generation } = client.grant;
  await relay.heard('tunnel_detached', (m) => m.tunnel === tunnel && m.generation === generation);
}

test('Connector - keeps a tunnel whose path is lost and goes on with the next, with every byte once', async (t) => {
  const lasting = await startLasting(t);
  const { relay, client, stream, connection, chunks, connector, metrics } = lasting;
  const up = pattern(1, 0, 600_000);
  const down = pattern(2, 0, 600_000);
  stream.stream.write(up.subarray(0, 300_000));
  connection.write(down.subarray(0, 300_000));
  await stream.bytes(50_000);
  await cut(lasting);
  t.is(connector.status().tunnels, 1);
  t.is(connector.status().detached, 1);
  connection.write(down.subarray(300_000));
  stream.stream.write(up.subarray(300_000));
  t.is(await client.resume(relay), undefined);
  const resumed = await relay.heard('tunnel_resumed');
  t.deepEqual(resumed, { type: 'tunnel_resumed', tunnel: client.grant.tunnel, generation: 2 });
  stream.stream.end();
  await once(connection, 'end');
  t.true(Buffer.concat(chunks).subarray(1).equals(up));
  t.true((await stream.bytes(down.length)).equals(down));
  t.is(connector.status().detached, 0);
  const text = metrics.render({});
  t.regex(text, /^ztna_connector_tunnels_detached_total\{reason="[a-z_]+"\} 1$/m);
  t.regex(text, /^ztna_connector_tunnels_resumed_total 1$/m);
});

test('Connector - moves a tunnel to another path and retires the one before', async (t) => {
  const { relay, client, stream, connection, chunks } = await startLasting(t);
  const before = client.slot;
  const up = pattern(4, 0, 400_000);
  stream.stream.write(up.subarray(0, 200_000));
  t.is(await client.resume(relay), undefined);
  await before.closed();
  stream.stream.write(up.subarray(200_000));
  stream.stream.end();
  await once(connection, 'end');
  t.true(Buffer.concat(chunks).subarray(1).equals(up));
  await relay.heard('tunnel_resumed');
  t.is(relay.told.filter((message) => message.type === 'tunnel_detached').length, 0);
});

test('Connector - keeps a tunnel whose lease is over, and delivers nothing until it is decided anew', async (t) => {
  const lasting = await startLasting(t);
  const { relay, client, stream, connection, chunks } = lasting;
  relay.pushLeases([[client.grant.tunnel, [1, 2], relay.nowMs() + 50]]);
  const detached = await relay.heard('tunnel_detached');
  t.is(detached.reason, 'lease_expired');
  await client.slot.closed();
  stream.stream.write(Buffer.from('late'));
  // A renewal that comes now brings nothing back.
  relay.pushLeases([[client.grant.tunnel, [1, 3], relay.nowMs() + 60_000]]);
  t.is(Buffer.concat(chunks).toString(), 'x');
  t.is(await client.resume(relay, { grant: { sequence: [1, 4] } }), undefined);
  await once(connection, 'data');
  t.is(Buffer.concat(chunks).toString(), 'xlate');
});

const others = newNoiseKeyPair();
const otherDevice = rawPublicKey(others.publicKey).toString('base64url');
const refusals: readonly [
  what: string,
  code: string,
  reason: string,
  changes: (lasting: Lasting) => ResumeChanges,
][] = [
  [
    'another device',
    'ERR_TUNNEL_RESUME_REFUSED',
    'device_other',
    () => ({ grant: { device: newId('device'), deviceKey: otherDevice }, deviceKeys: others }),
  ],
  [
    'another key of the device',
    'ERR_TUNNEL_RESUME_REFUSED',
    'device_other',
    () => ({ grant: { deviceKey: otherDevice }, deviceKeys: others }),
  ],
  [
    'another user',
    'ERR_TUNNEL_RESUME_REFUSED',
    'user_other',
    () => ({ grant: { user: newId('user') } }),
  ],
  [
    'an app that is not served',
    'ERR_GRANT_MISMATCH',
    'app_not_served',
    () => ({ grant: { app: newId('app') } }),
  ],
  [
    'another process',
    'ERR_GRANT_MISMATCH',
    'grant_mismatch',
    () => ({ grant: { instance: newId('instance') } }),
  ],
  [
    'a tunnel that is not there',
    'ERR_TUNNEL_RESUME_REFUSED',
    'tunnel_unknown',
    () => ({ grant: { tunnel: newId('tunnel') } }),
  ],
  [
    'the first generation again',
    'ERR_GRANT_USED',
    'tunnel_open',
    () => ({ grant: { generation: 1 } }),
  ],
  [
    'no generation',
    'ERR_GRANT_MISMATCH',
    'generation_unknown',
    () => ({ grant: { generation: 0 } }),
  ],
  [
    'a grant of the first version',
    'ERR_GRANT_MISMATCH',
    'generation_unknown',
    () => ({ grant: { version: 1 } }),
  ],
  [
    'a lease that is over',
    'ERR_TUNNEL_LEASE_EXPIRED',
    'lease_expired',
    ({ relay }) => ({ grant: { untilMs: relay.nowMs() - 1 } }),
  ],
  [
    'a wrong proof',
    'ERR_TUNNEL_RESUME_REFUSED',
    'proof_wrong',
    ({ client }) => ({ secret: Buffer.alloc(client.secret.length, 7) as FakeClient['secret'] }),
  ],
];
for (const [what, code, reason, changes] of refusals) {
  test(`Connector - refuses to take a tunnel up for ${what} with ${code}, and its path goes on`, async (t) => {
    const lasting = await startLasting(t);
    const { relay, client, stream, connection, chunks } = lasting;
    t.is(await client.resume(relay, changes(lasting)), code);
    const refused = await relay.heard('grant_refused');
    t.deepEqual([refused.code, refused.reason], [code, reason]);
    stream.stream.write(Buffer.from('still here'));
    await once(connection, 'data');
    t.is(Buffer.concat(chunks).toString(), 'xstill here');
    t.is(await client.resume(relay, { grant: { generation: 3 } }), undefined);
  });
}

test('Connector - takes each generation once, and none below the present one', async (t) => {
  const { relay, client } = await startLasting(t);
  t.is(await client.resume(relay, { grant: { generation: 5 } }), undefined);
  const { statement } = client;
  t.is(await client.resume(relay, { statement }), 'ERR_TUNNEL_RESUME_REFUSED'); // a duplicate
  for (const generation of [2, 4, 5]) {
    t.is(await client.resume(relay, { grant: { generation } }), 'ERR_TUNNEL_RESUME_REFUSED');
  }
  const reasons = relay.told.flatMap((m) => (m.type === 'grant_refused' ? [m.reason] : []));
  t.deepEqual(reasons, ['generation_old', 'generation_old', 'generation_old', 'generation_old']);
  t.is(await client.resume(relay, { grant: { generation: 6 } }), undefined);
});

test('Connector - of two that prove the same tunnel at once, the later generation stays', async (t) => {
  const { relay, client } = await startLasting(t);
  const older: ResumeChanges = {
    beforeProof: async () => {
      t.is(await client.resume(relay, { grant: { generation: 3 } }), undefined);
    },
  };
  t.is(await client.resume(relay, older), 'ERR_TUNNEL_RESUME_REFUSED');
  t.is((await relay.heard('grant_refused')).reason, 'generation_old');
});

test('Connector - a renewal that overtook the grant goes on counting', async (t) => {
  const { relay, client, metrics } = await startLasting(t);
  const { tunnel } = client.grant;
  const untilMs = relay.nowMs() + 60_000;
  const renewed = async (count: number): Promise<void> => {
    const line = `ztna_connector_renewals_total ${count}\n`;
    while (!metrics.render({}).includes(line)) await wait(2);
  };
  relay.pushLeases([[tunnel, [1, 9], untilMs]]);
  await renewed(1);
  t.is(await client.resume(relay, { grant: { sequence: [1, 2] } }), undefined);
  relay.pushLeases([[tunnel, [1, 5], relay.nowMs()]]); // later than the grant, and not than what overtook it
  relay.pushLeases([[tunnel, [1, 10], untilMs]]);
  await renewed(2);
  relay.pushLeases([[tunnel, [1, 11], relay.nowMs()]]);
  const detached = await relay.heard('tunnel_detached');
  t.deepEqual([detached.reason, detached.generation], ['lease_expired', 2]);
  // Decided before what has ended.
  const late = await client.resume(relay, { grant: { sequence: [1, 8] } });
  t.is(late, 'ERR_TUNNEL_RESUME_REFUSED');
  t.is((await relay.heard('grant_refused')).reason, 'sequence_old');
});

test('Connector - ends a detached tunnel that a log entry names, and lets nobody take it up', async (t) => {
  const lasting = await startLasting(t);
  const { relay, client, connection } = lasting;
  await cut(lasting);
  const outcome = appOutcome(connection);
  const subject = { kind: 'user', id: client.grant.user } as const;
  relay.pushLog({
    entries: [{ position: 1, action: 'revoke', subject, reason: 'user_disabled' }],
    completeTo: 1,
  });
  const closed = await relay.heard('tunnel_closed');
  t.deepEqual([closed.code, closed.reason], ['ERR_TUNNEL_REVOKED', 'user_disabled']);
  t.is(await outcome, 'ECONNRESET');
  t.is(await client.resume(relay), 'ERR_GRANT_REVOKED');
  t.is(await client.resume(relay, { grant: { position: 1 } }), 'ERR_TUNNEL_RESUME_REFUSED');
});

test('Connector - a revocation between the grant and the proof refuses the path', async (t) => {
  const { relay, client } = await startLasting(t);
  const session = newId('session');
  const beforeProof = async () => {
    relay.pushLog({
      entries: [
        {
          position: 1,
          action: 'revoke',
          subject: { kind: 'session', id: session },
          reason: 'signed_out',
        },
      ],
      completeTo: 1,
    });
    relay.pushLeases([[client.grant.tunnel, [1, 7], relay.nowMs() + 60_000]]);
    relay.send({ type: 'app_ids', appIds: [['app', relay.parties.app]] });
    await relay.client(relay.grant({ position: 1 })); // admitted only once the entry is known
  };
  t.is(await client.resume(relay, { grant: { session }, beforeProof }), 'ERR_GRANT_REVOKED');
});

test('Connector - resets a detached tunnel at the end of its hold time', async (t) => {
  const lasting = await startLasting(t, 20);
  const { relay, client, connection, connector } = lasting;
  const outcome = appOutcome(connection);
  await cut(lasting);
  const closed = await relay.heard('tunnel_closed');
  t.deepEqual([closed.code, closed.reason], ['ERR_TUNNEL_PATH_LOST', 'hold_over']);
  t.is(await outcome, 'ECONNRESET');
  t.is(connector.status().tunnels, 0);
  t.is(await client.resume(relay), 'ERR_TUNNEL_RESUME_REFUSED');
});

test('Connector - ends detached tunnels when it stops, and when their app leaves the map', async (t) => {
  for (const act of ['stop', 'change'] as const) {
    const lasting = await startLasting(t);
    const outcome = appOutcome(lasting.connection);
    await cut(lasting);
    if (act === 'stop') await lasting.stop();
    else lasting.connector.changeApps(new Map(), ['app']);
    t.is(await outcome, 'ECONNRESET');
    const { reason } = await lasting.relay.heard('tunnel_closed');
    t.is(reason, act === 'stop' ? 'connector_stopping' : 'app_removed');
  }
});

test('Connector - dials for a client that left, and lets the app wait until it is back', async (t) => {
  const lasting = await startLasting(t);
  const { relay, app, client } = lasting;
  const arriving = app.next();
  const stream = client.open(Buffer.from('asked'));
  const connection = await arriving;
  client.slot.ws.terminate();
  connection.end('answer');
  t.is(await client.resume(relay), undefined);
  t.is((await stream.bytes(6)).toString(), 'answer');
});

test('Connector - keeps so many tunnels of one device without a path, and no more', async (t) => {
  const { relay, connector } = await startConnector(t, { version: 2 });
  const clients: FakeClient[] = [];
  for (let i = 0; i <= maxDetachedPerDevice; i++) clients.push(await relay.tunnel({ version: 2 }));
  const [oldest] = clients.splice(1, 1);
  oldest?.slot.ws.terminate();
  await relay.until(() => connector.status().detached === 1);
  for (const { slot } of clients) slot.ws.terminate();
  const closed = await relay.heard('tunnel_closed');
  t.deepEqual([closed.code, closed.reason], ['ERR_LIMIT_TUNNELS', 'detached_full']);
  t.is(closed.tunnel, oldest?.grant.tunnel as never);
  await relay.until(() => connector.status().detached === maxDetachedPerDevice);
  t.is(connector.status().tunnels, maxDetachedPerDevice);
});

test('Connector - names detached tunnels in its hello and says how they stand', async (t) => {
  const lasting = await startLasting(t);
  const { relay, client } = lasting;
  const moved = await relay.tunnel({ version: 2 });
  t.is(await moved.resume(relay), undefined);
  await cut(lasting);
  await relay.heard('tunnel_resumed');
  relay.told.length = 0;
  relay.channel?.terminate();
  const hello = await relay.heard('hello');
  t.deepEqual(new Set(hello.tunnels), new Set([client.grant.tunnel, moved.grant.tunnel]));
  t.is((await relay.heard('tunnel_detached')).tunnel, client.grant.tunnel);
  t.is((await relay.heard('tunnel_resumed')).tunnel, moved.grant.tunnel);
});

test('Connector - says nothing of paths to a control plane of the first version', async (t) => {
  const { relay, connector } = await startConnector(t, { version: 1 });
  const client = await relay.tunnel({ version: 2 });
  client.slot.ws.terminate();
  while (connector.status().detached === 0) await wait(2);
  t.is(await client.resume(relay), undefined);
  client.close();
  await relay.heard('tunnel_closed');
  const types = new Set(relay.told.map(({ type }) => type));
  t.false(types.has('tunnel_detached') || types.has('tunnel_resumed'));
});

test('Connector - ends a tunnel of the first version with its path', async (t) => {
  const { relay, app } = await startConnector(t, { version: 2 });
  const client = await relay.tunnel({ version: 1 });
  const arriving = app.next();
  client.open(Buffer.from('x'));
  const outcome = appOutcome(await arriving);
  client.slot.ws.terminate();
  t.is((await relay.heard('tunnel_closed')).code, 'ERR_TUNNEL_PATH_LOST');
  t.is(await outcome, 'ECONNRESET');
});
