import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';
import test from 'ava';
import { RiskProfile } from '../../relay/control-plane/risk/index.ts';
import { auditHead, auditUntil } from '../support/audit-rows.ts';
import { Deployment } from '../support/deployment.ts';

const hourMs = 3_600_000;
const usualBytes = 1_048_576; // an hour
const times = 20;

/** What is sent at a time: as fast as it goes until twenty times the usual are through, then some forty times a second. */
const block = randomBytes(262_144);
const pauseMs = 25;

const policyWhen = (condition: string) => ({
  'calm.cedar': `@id("calm") permit (principal in Group::"staff", action == Action::"connect", resource) when { ${condition} };`,
});

/** Three weeks of habits around the clock, as the relay would have learned them from this user. */
function habitsOf(user: string, nowMs: number): string {
  const profile = new RiskProfile();
  const facts = { user, device: 'dev_before', app: 'archive', address: '127.0.0.1', place: null };
  for (let atMs = nowMs - 21 * 24 * hourMs; atMs < nowMs - hourMs; atMs += hourMs) {
    profile.learn({ ...facts, atMs, kind: 'sign_in', app: null });
    profile.learn({ ...facts, atMs, kind: 'connect' });
    profile.learn({ ...facts, atMs, kind: 'bytes', bytesOut: usualBytes, spanMs: 60_000 });
  }
  return profile.toJson();
}

/** Gives a user a past, before the relay has met it. */
async function giveHabits(deployment: Deployment, name: string): Promise<void> {
  await deployment.admin('user', 'add', name, '--group', 'staff');
  const database = new DatabaseSync(join(deployment.relayDir, 'control-plane', 'store.sqlite'));
  try {
    const row = database.prepare('select id from users where name = ?').get(name);
    const user = String(row?.['id']);
    const nowMs = Date.now();
    database
      .prepare('insert into risk_profiles (user_id, profile_json, updated_at_ms) values (?, ?, ?)')
      .run(user, habitsOf(user, nowMs), nowMs);
  } finally {
    database.close();
  }
}

interface RiskTold {
  readonly score: number;
  readonly contributions: readonly { readonly name: string; readonly points: number }[];
}

test('risk - twenty times the usual bytes freeze a download, say why, and lose nothing of it', async (t) => {
  t.timeout(120_000);
  let isEnding = false;
  let bytes = 0;
  let passedAtMs = 0;
  const sent = createHash('sha256');
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    void send(socket);
  });
  const send = async (socket: Socket): Promise<void> => {
    for (let number = 0; !isEnding && !socket.destroyed; number++) {
      const chunk = Buffer.from(block);
      chunk.writeUInt32BE(number, 0);
      sent.update(chunk);
      if (!socket.write(chunk)) {
        await Promise.race([once(socket, 'drain').catch(() => undefined), once(socket, 'close')]);
      }
      if (passedAtMs > 0) await delay(pauseMs);
    }
    socket.end();
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const target = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const deployment = await Deployment.start({
    apps: [{ name: 'archive', target, health: 'off' }],
    policies: policyWhen('context.risk.score < 50'),
  });
  t.teardown(() => deployment.stop());
  await giveHabits(deployment, 'ada');
  const machine = await deployment.enrol('ada');
  const { program, port } = await deployment.connect(machine, 'archive');
  t.teardown(() => program.stop('SIGKILL'));
  const after = await auditHead(deployment);

  const received = createHash('sha256');
  const socket = connect({ port, host: '127.0.0.1' });
  t.teardown(() => socket.destroy());
  const ended = once(socket, 'end');
  socket.on('data', (chunk: Buffer) => {
    received.update(chunk);
    bytes += chunk.length;
    if (passedAtMs === 0 && bytes >= times * usualBytes) passedAtMs = Date.now();
  });

  const suspended = await program.event('suspended');
  const suspendedAtMs = Date.now();
  t.is(suspended['reason'], 'risk_high');
  t.regex(String(suspended['fix']), /wait for the risk score to fall/);
  const [cut] = await auditUntil(
    deployment,
    after,
    1,
    ({ action, actor }) => action === 'tunnel.cut' && actor.startsWith('connector:'),
  );
  const frozen = bytes;
  t.true(frozen >= 8 * usualBytes); // where points begin; a count may come in the middle of it all
  t.like(await deployment.connectorStatus(), { tunnels: 1, detached: 1 });
  t.is(bytes, frozen);
  // How soon is for whoever reads this: a busy machine proves nothing about it.
  const sinceMs = (atMs: number) => (passedAtMs === 0 ? 0 : atMs - passedAtMs);
  t.log(
    `after ${times} times the usual: told ${sinceMs(suspendedAtMs)} ms, last byte ${sinceMs(Number(cut?.details['lastByteAtMs']))} ms; ${(frozen / usualBytes).toFixed(0)} times the usual had passed`,
  );

  const [suspend] = await auditUntil(
    deployment,
    after,
    1,
    ({ action }) => action === 'tunnel.suspend',
  );
  const risk = suspend?.details['risk'] as RiskTold;
  t.true(risk.score >= 50);
  t.is(risk.contributions[0]?.name, 'bytes_out');
  const decision = JSON.parse(
    await deployment.admin('decision', 'show', String(suspend?.ref), '--json'),
  ) as { inputs: { context: { risk: { factors: string[] } } } };
  t.true(decision.inputs.context.risk.factors.includes('bytes_out'));
  const [first = ''] = (await deployment.admin('session', 'list', '--json')).split('\n');
  const { id } = JSON.parse(first) as { id: string };
  const session = JSON.parse(await deployment.admin('session', 'show', id, '--json')) as {
    risk: RiskTold;
  };
  t.true(session.risk.contributions.some(({ name }) => name === 'bytes_out'));

  // Whoever looks into it and finds it well may let it go on.
  await deployment.applyPolicies(policyWhen('context.risk.score <= 100'));
  await program.event('resumed');
  isEnding = true;
  await ended;
  t.is(received.digest('hex'), sent.digest('hex'));
  t.true(bytes > frozen);
  await program.stop('SIGINT');
});
