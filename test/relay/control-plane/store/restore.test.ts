import { cp, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { leaseBatchSchema, verifyStatement } from '../../../../protocol/index.ts';
import { RevocationFeed } from '../../../../protocol/host/index.ts';
import pg from 'pg';
import { missingServer } from '../../../support/postgresql.ts';
import { stopOwnPostgres } from '../../../support/shared-postgresql.ts';
import { fileEngine } from '../fixture.ts';
import { Rig, staffPolicy, type ConnectorPeer } from '../service/rig.ts';

async function startRig(t: ExecutionContext): Promise<Rig> {
  const rig = await Rig.start({ verification: { intervalMs: 1_000, holdMs: 300_000 } });
  t.teardown(() => rig.stop());
  return rig;
}

async function restores(rig: Rig): Promise<Record<string, unknown>[]> {
  const rows = await rig.plane.services.audit.read();
  return rows
    .filter(({ action }) => action === 'store.restore')
    .map(({ detailsJson }) => JSON.parse(detailsJson) as Record<string, unknown>);
}

function state(rig: Rig) {
  const { feed, sequence, bundle, clock } = rig.plane.services;
  const { incarnation, head } = feed;
  const { fencing } = sequence;
  return { incarnation, head, fencing, bundle: bundle.version, nowMs: clock.nowMs() };
}

/** Everything that the log has told a connector so far, as the connector itself takes it. */
function feedOf(connector: ConnectorPeer, feed?: RevocationFeed): RevocationFeed {
  const known =
    feed ?? new RevocationFeed({ audience: connector.identity.id, clock: { nowMs: Date.now } });
  for (const message of connector.messages) {
    if (message.type === 'log') known.receive(message.statement, connector.identity.bundle);
  }
  return known;
}

test('start - a store that went back is noticed, and peers that remember more still believe it', async (t) => {
  const rig = await startRig(t);
  await rig.admin('policy.apply', { files: staffPolicy });
  const connector = await rig.connector('berlin', ['wiki']);
  const device = await rig.device('alice');
  const file = join(rig.dir, 'control-plane', 'store.sqlite');
  const { instance } = connector;

  await rig.plane.stop();
  const older = await readFile(file);
  await rig.startPlane();
  await rig.admin('user.disable', { name: 'alice' });
  await rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'left' });
  const before = state(rig);
  t.is(before.head, 2);
  const between = await rig.connectConnector(connector.identity, ['wiki'], { instance });
  await between.completeTo(2);
  const feed = feedOf(between, feedOf(connector));
  t.is(feed.completeTo, 2);

  await rig.plane.stop();
  await writeFile(file, older);
  await rig.startPlane();
  const after = state(rig);
  t.is(after.head, 0);
  t.true(after.incarnation > before.incarnation);
  t.true(after.fencing > before.fencing);
  t.true(after.bundle > before.bundle);
  t.true(after.nowMs >= before.nowMs);
  t.deepEqual(await restores(rig), [
    { reason: 'store_older', incarnation: after.incarnation, fencing: after.fencing },
  ]);
  t.true(rig.logLines.some((line) => line.includes('store_restored')));

  // Alice is as she was in the backup; what ends her access now reaches who remembers position 2.
  const again = await rig.connectConnector(connector.identity, ['wiki'], { instance });
  await rig.relay(again);
  const back = await rig.connectDevice(device.identity);
  await rig.untilRouted('wiki', back);
  const permit = await back.channel.request({ type: 'grant', app: 'wiki' });
  t.is(permit.type, 'permit');
  const lease = await again.find((message) => (message.type === 'leases' ? message : undefined));
  const { entries } = verifyStatement(
    'lease',
    leaseBatchSchema,
    lease.statement,
    again.identity.bundle.grantKeys,
  );
  t.is(entries[0]?.[1][0], after.fencing);
  await rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'left' });
  await again.find((message) => {
    if (message.type !== 'log') return undefined;
    const learned = feed.receive(message.statement, again.identity.bundle);
    return learned.some(({ subject }) => subject.kind === 'user') ? learned : undefined;
  });
  t.is(feed.incarnation, after.incarnation);
});

test('start - a whole directory copied back is noticed, and so are marks that are gone', async (t) => {
  const rig = await startRig(t);
  const directory = join(rig.dir, 'control-plane');
  const saved = join(rig.dir, 'saved');
  await rig.admin('user.add', { name: 'alice', groups: [] });
  await rig.plane.stop();
  await mkdir(saved, { mode: 0o700 });
  await cp(directory, saved, { recursive: true, preserveTimestamps: true });
  await rig.startPlane();
  await rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'left' });
  const before = state(rig);
  await rig.plane.stop();

  await rm(directory, { recursive: true });
  await cp(saved, directory, { recursive: true, preserveTimestamps: true });
  await rig.startPlane();
  const copied = state(rig);
  const [restored] = await restores(rig);
  t.is(restored?.['reason'], 'mark_copied');
  t.true(copied.incarnation > before.incarnation);
  t.true(copied.fencing > before.fencing);
  await rig.plane.stop();

  await rm(join(directory, 'high-water.json'));
  await rig.startPlane();
  const missing = state(rig);
  t.is((await restores(rig)).at(-1)?.['reason'], 'mark_missing');
  t.true(missing.incarnation > copied.incarnation);
  t.true(missing.fencing > copied.fencing);
});

test('start - a store that is where it was left is no restored one, after a stop and after a crash', async (t) => {
  const rig = await startRig(t);
  const path = join(rig.dir, 'control-plane', 'high-water.json');
  await rig.admin('user.add', { name: 'alice', groups: [] });
  const atStart = await readFile(path);
  await rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'left' });
  const first = state(rig);
  await rig.plane.stop();
  t.notDeepEqual(await readFile(path), atStart);
  t.is((await stat(path)).mode & 0o777, 0o600);
  // As a crash leaves it: the marks are behind the store.
  await writeFile(path, atStart);
  const crashed = JSON.parse(String(atStart)) as { bornAtNs: string };
  const { birthtimeNs } = await stat(path, { bigint: true });
  await writeFile(path, JSON.stringify({ ...crashed, bornAtNs: String(birthtimeNs) }));
  await rig.startPlane();
  await rig.plane.stop();
  await rig.startPlane();
  const last = state(rig);
  t.deepEqual(await restores(rig), []);
  t.is(last.incarnation, first.incarnation);
  t.is(last.head, first.head);
  t.is(last.fencing, first.fencing + 2);
});

const missing = missingServer();
(missing === undefined ? test.serial : test.serial.skip)(
  `start - a PostgreSQL store that was restored is noticed${missing === undefined ? '' : `: ${missing}`}`,
  async (t) => {
    fileEngine.isPostgres = true;
    const rig = await startRig(t);
    fileEngine.isPostgres = false;
    await rig.admin('user.add', { name: 'alice', groups: [] });
    for (let i = 0; i < 3; i++) {
      await rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'left' });
    }
    const before = state(rig);
    await rig.plane.stop();
    const client = new pg.Client(rig.storeUrl ?? '');
    await client.connect();
    await client.query('delete from ztna.revocations where position > 1');
    await client.end();
    await rig.startPlane();
    const after = state(rig);
    t.true(after.incarnation > before.incarnation);
    t.true(after.fencing > before.fencing);
    t.true(after.bundle > before.bundle);
    t.is((await restores(rig)).at(-1)?.['reason'], 'store_older');

    // And under its feet: it makes the store safe to begin with, and asks to begin anew.
    const again = new pg.Client(rig.storeUrl ?? '');
    await again.connect();
    await rig.admin('revoke', { kind: 'user', id: 'alice', reason: 'left' });
    await rig.plane.services.feed.wake();
    await again.query('delete from ztna.revocations where incarnation = $1', [after.incarnation]);
    void rig.plane.services.feed.wake();
    await rig.plane.wentBack;
    await rig.plane.stop();
    await rig.startPlane();
    const anew = state(rig);
    t.true(anew.incarnation > after.incarnation);
    t.true(anew.fencing > after.fencing);
    t.true(anew.bundle > after.bundle);
    t.is(anew.head, 0);

    // Also where no revocation was made since the backup: the store forgot that this process lived.
    await again.query('update ztna.control_planes set last_seen_at_ms = last_seen_at_ms - 60000');
    await rig.plane.wentBack;
    const { rows } = await again.query<{ value: string }>(
      "select value from ztna.meta where key = 'incarnation'",
    );
    t.true(Number(rows[0]?.value) > anew.incarnation);
    t.like((await restores(rig)).at(-1), { reason: 'store_older', isRunning: true });
    await again.end();
  },
);

test.after.always('stop PostgreSQL', () => stopOwnPostgres());
