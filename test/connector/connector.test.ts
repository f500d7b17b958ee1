import test from 'ava';
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { newId, ZtnaError, type AppId } from '../../protocol/index.ts';
import { StreamBudget } from '../../connector/stream-budget.ts';
import { startConnector } from './running-connector.ts';
import { appOutcome } from './test-app.ts';

test('Connector - says hello with its app names and keeps as many sockets idle as it is told', async (t) => {
  const { relay, connector } = await startConnector(t);
  const hello = await relay.heard('hello');
  t.deepEqual(hello.apps, ['app']);
  t.deepEqual(hello.tunnels, []);
  t.is(relay.idle.length, 2);
  const status = connector.status();
  t.is(status.state, 'ready');
  t.is(status.slots, 2);
  t.deepEqual(
    status.apps.map(({ name, routed }) => [name, routed]),
    [['app', true]],
  );
});

test('Connector - carries bytes both ways and half-close as half-close', async (t) => {
  const { relay, app } = await startConnector(t);
  const client = await relay.tunnel();
  const arriving = app.next();
  const stream = client.open(Buffer.from('question'));
  stream.stream.end();
  const connection = await arriving;
  const chunks: Buffer[] = [];
  connection.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(connection, 'end');
  t.is(Buffer.concat(chunks).toString(), 'question');
  connection.end('answer');
  t.is((await stream.bytes(6)).toString(), 'answer');
  t.is(await stream.outcome(), 'end');
  client.close();
  const closed = await relay.heard('tunnel_closed');
  t.is(closed.tunnel, client.grant.tunnel);
  t.is(closed.reason, 'client_closed');
  t.is(closed.bytesUp, 8);
  t.is(closed.bytesDown, 6);
});

test('Connector - tells the control plane of a tunnel once it is open', async (t) => {
  const { relay, connector, metrics } = await startConnector(t);
  const client = await relay.tunnel();
  t.is((await relay.heard('tunnel_opened')).tunnel, client.grant.tunnel);
  t.is(connector.status().tunnels, 1);
  t.regex(metrics.render({}), /^ztna_connector_tunnels_opened_total 1$/m);
});

test('Connector - replaces a socket that was used', async (t) => {
  const { relay } = await startConnector(t);
  const before = [...relay.idle];
  await relay.tunnel();
  await relay.until(() => relay.idle.some((slot) => !before.includes(slot)));
  t.is(relay.idle.length, 2);
});

test('Connector - serves what the client sent right behind its handshake', async (t) => {
  const { relay, app } = await startConnector(t);
  const arriving = app.next();
  const client = await relay.client(relay.grant(), Buffer.from('at once'));
  const connection = await arriving;
  const [bytes] = (await once(connection, 'data')) as [Buffer];
  t.is(bytes.toString(), 'at once');
  await client.accepted;
});

test('Connector - one device has so many connections and no more, until one of them ends', async (t) => {
  const streams = new StreamBudget({ perDevice: 1 });
  const { relay, app } = await startConnector(t, { streams });
  const arriving = app.next();
  const first = (await relay.tunnel()).open(Buffer.from('x'));
  const connection = await arriving;
  const other = await relay.tunnel(); // of the same device
  t.is(await other.open(Buffer.from('x')).outcome(), 'reset limit');
  connection.on('error', () => undefined);
  first.stream.reset('reset');
  while (streams.total > 0) await wait(2);
  const again = app.next();
  other.open(Buffer.from('x'));
  await again;
});

test('Connector - resets the app at the end of the lease and says so to all', async (t) => {
  const { relay, app } = await startConnector(t);
  const client = await relay.tunnel();
  const arriving = app.next();
  const stream = client.open(Buffer.from('x'));
  const connection = await arriving;
  await once(connection, 'data');
  const outcome = appOutcome(connection);
  relay.pushLeases([[client.grant.tunnel, [1, 2], relay.nowMs() + 100]]);
  t.is(await outcome, 'ECONNRESET');
  t.is(await stream.outcome(), 'reset closed');
  const error = await client.ended;
  t.is(error.code, 'ERR_TUNNEL_LEASE_EXPIRED');
  t.is(error.reason, 'lease_expired');
  t.deepEqual(await client.slot.closed(), { code: 4411, text: 'ERR_TUNNEL_LEASE_EXPIRED' });
  const closed = await relay.heard('tunnel_closed');
  t.is(closed.code, 'ERR_TUNNEL_LEASE_EXPIRED');
  t.is(closed.bytesUp, 1);
});

test('Connector - takes no renewal that is older than what it knows', async (t) => {
  const { relay, app, metrics } = await startConnector(t);
  const client = await relay.tunnel({ sequence: [3, 7] });
  relay.pushLeases([[client.grant.tunnel, [3, 6], relay.nowMs()]]);
  relay.pushLeases([[client.grant.tunnel, [2, 9], relay.nowMs()]]);
  relay.pushLeases([[client.grant.tunnel, [3, 8], relay.nowMs() + 60_000]]);
  relay.send({ type: 'app_ids', appIds: [] });
  t.is((await relay.client(relay.grant())).grant.app, relay.parties.app);
  await relay.heard('grant_refused'); // so everything before it was taken
  t.regex(metrics.render({}), /^ztna_connector_renewals_total 1$/m);
  const arriving = app.next();
  client.open(Buffer.from('still here'));
  await arriving;
});

test('Connector - drops a channel that brings another connector’s leases', async (t) => {
  const { relay, connector } = await startConnector(t);
  const client = await relay.tunnel();
  const channel = relay.channel;
  relay.pushLeases([[client.grant.tunnel, [1, 2], relay.nowMs()]], {
    connector: newId('connector'),
  });
  const [code] = (await once(channel ?? t.fail(), 'close')) as [number];
  t.is(code, 4401);
  t.is(connector.status().tunnels, 1);
});

test('Connector - ends the tunnels that a log entry names, with its reason, and no others', async (t) => {
  const { relay, app } = await startConnector(t);
  const [kept, revoked] = [await relay.tunnel(), await relay.tunnel()];
  const arriving = app.next();
  revoked.open(Buffer.from('x'));
  const outcome = appOutcome(await arriving);
  relay.pushLog({
    entries: [
      {
        position: 1,
        action: 'revoke',
        subject: { kind: 'session', id: revoked.grant.session },
        reason: 'session_ended',
      },
    ],
    completeTo: 1,
  });
  const error = await revoked.ended;
  t.is(error.code, 'ERR_TUNNEL_REVOKED');
  t.is(error.reason, 'session_ended');
  t.is(await outcome, 'ECONNRESET');
  t.deepEqual(await revoked.slot.closed(), { code: 4410, text: 'ERR_TUNNEL_REVOKED' });
  const closed = await relay.heard('tunnel_closed');
  t.is(closed.tunnel, revoked.grant.tunnel);
  t.is(closed.reason, 'session_ended');
  const stillServed = app.next();
  kept.open(Buffer.from('y'));
  await stillServed;
});

test('Connector - lets a grant that runs ahead of the log wait for it', async (t) => {
  const { relay } = await startConnector(t);
  const client = await relay.client(relay.grant({ position: 5 }));
  relay.pushLog({ completeTo: 5 });
  await client.accepted;
  t.pass();
});

test('Connector - refuses a grant that was revoked before it came', async (t) => {
  const { relay } = await startConnector(t);
  const grant = relay.grant({ position: 3 });
  const entry = {
    position: 4,
    action: 'revoke',
    subject: { kind: 'device', id: grant.device },
    reason: 'device_lost',
  } as const;
  relay.pushLog({ entries: [entry], completeTo: 4 });
  const client = await relay.client(grant);
  t.is((await client.ended).code, 'ERR_GRANT_REVOKED');
  const refused = await relay.heard('grant_refused');
  t.is(refused.tunnel, grant.tunnel);
  t.is(refused.code, 'ERR_GRANT_REVOKED');
  t.is(refused.reason, 'device_lost');
});

const refusals = [
  ['ERR_GRANT_MISMATCH', 4403, { instance: newId('instance') }],
  ['ERR_GRANT_MISMATCH', 4403, { generation: 2 }],
  ['ERR_GRANT_EXPIRED', 4403, { expiresAtMs: 0, issuedAtMs: 0 }],
] as const;
for (const [code, closeCode, changes] of refusals) {
  test(`Connector - refuses with ${code} a grant with another ${Object.keys(changes)[0] ?? ''} and dials nothing`, async (t) => {
    const { relay, app } = await startConnector(t);
    const grant = relay.grant();
    // The device would not present such a grant; a client that cheats does.
    const shown = relay.parties.signGrant({ ...grant, ...changes });
    const slot = await relay.assign(grant, shown);
    const client = relay.parties.uncheckedHandshake(shown);
    slot.ws.send(client.message1());
    slot.ws.send(client.receiveMessage2(await slot.nextBinary()).message3);
    t.deepEqual(await slot.closed(), { code: closeCode, text: code });
    t.is((await relay.heard('grant_refused')).code, code);
    t.is(app.connections.length, 0);
  });
}

test('Connector - takes a grant once', async (t) => {
  const { relay } = await startConnector(t);
  const grant = relay.grant();
  const first = await relay.client(grant);
  await first.accepted;
  const second = await relay.client(grant);
  t.is((await second.ended).code, 'ERR_GRANT_USED');
  first.close();
  await relay.heard('tunnel_closed');
  const third = await relay.client(grant);
  t.is((await third.ended).code, 'ERR_GRANT_USED');
});

test('Connector - refuses an assignment whose grant nobody signed', async (t) => {
  const { relay } = await startConnector(t);
  const grant = relay.grant();
  const slot = await relay.assign(grant, relay.parties.signGrant(grant, relay.parties.rosterKey));
  t.deepEqual(slot.answer, {
    type: 'refused',
    tunnel: grant.tunnel,
    code: 'ERR_STATEMENT_REFUSED',
  });
  t.is((await slot.closed()).text, 'ERR_STATEMENT_REFUSED');
});

test('Connector - refuses a client whose message 3 was tampered with', async (t) => {
  const { relay, app } = await startConnector(t);
  const grant = relay.grant();
  const statement = relay.parties.signGrant(grant);
  const slot = await relay.assign(grant, statement);
  const handshake = relay.parties.clientHandshake(statement, relay.nowMs());
  slot.ws.send(handshake.message1());
  const { message3 } = handshake.receiveMessage2(await slot.nextBinary());
  message3[100] = (message3[100] ?? 0) ^ 1;
  slot.ws.send(message3);
  t.deepEqual(await slot.closed(), { code: 4401, text: 'ERR_HANDSHAKE_FAILED' });
  t.is(app.connections.length, 0);
});

test('Connector - says when the app refuses', async (t) => {
  const { relay, app } = await startConnector(t);
  await app.stop();
  const client = await relay.tunnel();
  t.is(await client.open(Buffer.from('x')).outcome(), 'reset refused');
});

test('Connector - loses its idle sockets with the channel, keeps its tunnels and lists them again', async (t) => {
  const { relay, app, connector } = await startConnector(t);
  const client = await relay.tunnel();
  const idle = [...relay.idle];
  relay.told.length = 0;
  relay.channel?.terminate();
  for (const slot of idle) await slot.closed();
  const hello = await relay.heard('hello');
  t.deepEqual(hello.tunnels, [client.grant.tunnel]);
  const arriving = app.next();
  client.open(Buffer.from('x'));
  await arriving;
  await relay.until(() => relay.idle.length === 2);
  t.is(connector.status().tunnels, 1);
});

test('Connector - tells what ended while the channel was away once it is back', async (t) => {
  const { relay } = await startConnector(t);
  const client = await relay.tunnel();
  const idle = [...relay.idle];
  relay.channel?.terminate();
  for (const slot of idle) await slot.closed();
  client.close();
  t.is((await relay.heard('tunnel_closed')).tunnel, client.grant.tunnel);
});

test('Connector - ends the tunnels of an app that left the map', async (t) => {
  const { relay, app, connector } = await startConnector(t);
  const client = await relay.tunnel();
  const arriving = app.next();
  client.open(Buffer.from('x'));
  const outcome = appOutcome(await arriving);
  connector.changeApps(new Map(), ['app']);
  t.is((await client.ended).reason, 'app_removed');
  t.is(await outcome, 'ECONNRESET');
  t.deepEqual((await relay.heard('apps')).apps, []);
  const refused = await relay.client(relay.grant());
  t.is((await refused.ended).code, 'ERR_GRANT_MISMATCH');
});

test('Connector - serves an app as soon as the relay gives it an id', async (t) => {
  const { relay } = await startConnector(t);
  relay.send({ type: 'app_ids', appIds: [] });
  const before = await relay.client(relay.grant());
  t.is((await before.ended).code, 'ERR_GRANT_MISMATCH');
  const appIds: [string, AppId][] = [['app', relay.parties.app]];
  relay.send({ type: 'app_ids', appIds });
  await relay.tunnel();
});

test('Connector - when told to stop ends its tunnels with that reason and resets the app', async (t) => {
  const { relay, app, stop } = await startConnector(t);
  const client = await relay.tunnel();
  const arriving = app.next();
  client.open(Buffer.from('x'));
  const outcome = appOutcome(await arriving);
  await stop();
  t.is((await client.ended).reason, 'connector_stopping');
  t.is(await outcome, 'ECONNRESET');
  t.is((await relay.heard('tunnel_closed')).reason, 'connector_stopping');
  await relay.until(() => relay.idle.length === 0);
});

test('Connector - ends for good when the relay has revoked it, and only then', async (t) => {
  const { relay, connector, running } = await startConnector(t);
  const client = await relay.tunnel();
  relay.channel?.close(4410, 'ERR_IDENTITY_REVOKED');
  const error = await t.throwsAsync(running, { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_IDENTITY_REVOKED');
  t.is((await client.ended).reason, 'connector_revoked');
  t.is(connector.status().state, 'stopping');
});

test('Connector - ends for good when a newer process of it has taken its place', async (t) => {
  const { relay, running } = await startConnector(t);
  const client = await relay.tunnel();
  relay.channel?.close(4409, 'ERR_CONNECTOR_REPLACED');
  const error = await t.throwsAsync(running, { instanceOf: ZtnaError });
  t.is(error.code, 'ERR_CONNECTOR_REPLACED');
  t.is((await client.ended).reason, 'connector_replaced');
});

test('Connector - tells what it found of its apps where that is understood', async (t) => {
  const { relay } = await startConnector(t, { version: 2 });
  await relay.heard('app_health', ({ apps }) =>
    apps.some(([name, isUp]) => name === 'app' && isUp),
  );
  t.pass();
});

test('Connector - names what keeps it from being ready, and nothing when it is', async (t) => {
  const { relay, connector } = await startConnector(t);
  t.deepEqual(connector.problems(), []);
  relay.channel?.terminate();
  await relay.until(() => !connector.isReady);
  t.regex(connector.problems().join(), /no control channel to https/);
});

test('Connector - is not ready while a relay gives it no sockets, names it, and is ready again after', async (t) => {
  const { relay, connector } = await startConnector(t, { wedgedAfterMs: 0 });
  relay.refusesSlots = true;
  for (const slot of [...relay.idle]) slot.ws.terminate();
  await relay.until(() => relay.refused > 0);
  const [problem] = connector.problems();
  t.regex(problem ?? '', new RegExp(`^relay ${relay.parties.relay} https://.* is wedged: 0 of 2`));
  t.is(connector.status().channel, 'open');
  t.is(connector.status().state, 'waiting');
  relay.refusesSlots = false;
  await relay.until(() => relay.idle.length === 2);
  while (!connector.isReady) await new Promise(setImmediate); // its own end of the last one opens
  t.deepEqual(connector.problems(), []);
});

test('Connector - drains: takes nothing new, lets tunnels in use go on, and is done with the last', async (t) => {
  const { relay, app, connector, log } = await startConnector(t, { version: 2 });
  const client = await relay.tunnel();
  const arriving = app.next();
  const stream = client.open(Buffer.from('before'));
  const connection = await arriving;
  let isDrained = false;
  const drained = connector.drain(3_600_000).then(() => (isDrained = true));
  await relay.heard('stopping');
  await relay.until(() => relay.idle.length === 1);
  t.regex(connector.problems().join(), /stopping/);
  connection.write('still here');
  t.is((await stream.bytes(10)).toString(), 'still here');
  const another = app.next();
  client.open(Buffer.from('new stream'));
  await another;
  t.false(isDrained);
  client.close();
  await drained;
  t.true(log.some((line) => line.includes('"draining"')));
});

test('Connector - drains for no longer than it may', async (t) => {
  const { relay, connector } = await startConnector(t, { version: 2 });
  await relay.tunnel();
  await connector.drain(10);
  t.is(connector.status().tunnels, 1);
});

test('Connector - closes all its idle sockets when a relay does not know that it stops', async (t) => {
  const { relay, connector } = await startConnector(t);
  await connector.drain(10);
  await relay.until(() => relay.idle.length === 0);
  t.false(relay.told.some(({ type }) => type === 'stopping'));
});

test('Connector - names the code when the relay closes a path without a word', async (t) => {
  const { relay } = await startConnector(t);
  const client = await relay.tunnel();
  client.slot.ws.close(4503, 'ERR_RELAY_DRAINING');
  const closed = await relay.heard('tunnel_closed');
  t.is(closed.code, 'ERR_RELAY_DRAINING');
  t.is(closed.reason, 'relay_draining');
});

test('Connector - writes no key, grant or payload to its log', async (t) => {
  const { relay, app, log } = await startConnector(t);
  const grant = relay.grant();
  const client = await relay.client(grant);
  const arriving = app.next();
  client.open(Buffer.from('canary-payload'));
  await once(await arriving, 'data');
  client.close();
  await relay.heard('tunnel_closed');
  const text = log.join('\n');
  t.true(text.includes(grant.tunnel));
  t.false(text.includes('canary-payload'));
  t.false(text.includes(grant.deviceKey));
  t.false(/(grant|lease|log)\.[0-9a-f]{16}\./.test(text));
});
