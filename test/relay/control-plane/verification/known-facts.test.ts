import ava, { type ExecutionContext } from 'ava';
import { sql } from 'kysely';
import { newId, type AppId } from '../../../../protocol/index.ts';
import { startSession } from '../../../../relay/control-plane/identity/index.ts';
import type { LiveTunnel } from '../../../../relay/control-plane/live/tunnel-index.ts';
import type { Services } from '../../../../relay/control-plane/services.ts';
import type { Store } from '../../../../relay/control-plane/store/index.ts';
import { KnownFacts } from '../../../../relay/control-plane/verification/known-facts.ts';
import { addUser, enrolDevice, onEveryStore, openTestStore, startMs } from '../fixture.ts';

const test = onEveryStore(ava);

const services = { risk: { readTold: () => Promise.resolve([]) } } as unknown as Services;
const limits = { idleMs: 600_000, absoluteMs: 86_400_000 };

interface Rows {
  readonly store: Store;
  readonly tunnel: LiveTunnel;
}

async function addRows(t: ExecutionContext): Promise<Rows> {
  const store = await openTestStore(t);
  const user = await addUser(store, 'anna');
  const device = await enrolDevice(store, user.id);
  const ids = { userId: user.id, deviceId: device.id, provider: 'local', methods: ['password'] };
  const { session } = await store.write((tx) =>
    startSession(tx, { ...ids, limits, nowMs: startMs }),
  );
  const site = { id: newId('site'), name: 'berlin', createdAtMs: startMs };
  const app: AppId = newId('app');
  const row = { name: 'wiki', siteId: site.id, kind: 'tcp' as const, portHint: null };
  await store.write(async (tx) => {
    await tx.insertInto('sites').values(site).execute();
    await tx
      .insertInto('apps')
      .values({ id: app, ...row, labelsJson: '{}', createdAtMs: startMs })
      .execute();
  });
  const tunnel = { user: user.id, device: device.id, session: session.id, app } as LiveTunnel;
  return { store, tunnel };
}

/** One look at a tunnel, as a tick has it. */
async function look(known: KnownFacts, { store, tunnel }: Rows, nowMs = startMs) {
  const stamps = await known.stamps(store.db, [tunnel], nowMs);
  const at = { stamps, nowMs, untilMs: nowMs + 60_000 };
  return {
    subject: await known.subject(services, store.db, tunnel, at),
    app: await known.app(store.db, tunnel.app, at),
  };
}

test('known facts - the same rows are the same facts, however much time goes by between looks', async (t) => {
  const rows = await addRows(t);
  const known = new KnownFacts();
  const first = await look(known, rows);
  t.truthy(first.subject);
  for (let minute = 0; minute < 5; minute++) {
    const next = await look(known, rows, startMs + minute * 60_000);
    t.is(next.subject, first.subject);
    t.is(next.app, first.app);
  }
});

test('known facts - after five minutes nothing is believed by its stamps alone', async (t) => {
  const rows = await addRows(t);
  const { store } = rows;
  const known = new KnownFacts();
  const first = await look(known, rows);
  for (const statement of [
    sql`update users set disabled = 1`,
    sql`update apps set labels_json = '{"a":"b"}'`,
  ]) {
    await store.write(async (tx) => {
      const before = await tx.selectFrom('factStamps').selectAll().execute();
      await statement.execute(tx);
      if (store.engine === 'postgresql') await sql`set constraints all immediate`.execute(tx);
      // As if there were no triggers.
      await tx.deleteFrom('factStamps').execute();
      await tx.insertInto('factStamps').values(before).execute();
    });
  }
  t.is((await look(known, rows, startMs + 299_000)).subject, first.subject);
  const later = await look(known, rows, startMs + 300_000);
  t.is(later.subject?.user.disabled, 1);
  t.is(later.app?.app.labelsJson, '{"a":"b"}');
  const again = await look(known, rows, startMs + 301_000);
  t.is(again.subject, later.subject);
});

test('known facts - what nobody asks for is forgotten', async (t) => {
  const rows = await addRows(t);
  const known = new KnownFacts();
  const first = await look(known, rows);
  for (let minute = 1; minute < 4; minute++) {
    await known.stamps(rows.store.db, [], startMs + minute * 60_000);
  }
  t.not((await look(known, rows, startMs + 240_000)).subject, first.subject);
});

test('known facts - that a session was used, which is not stamped, is seen before its known end', async (t) => {
  const rows = await addRows(t);
  const { store, tunnel } = rows;
  const known = new KnownFacts();
  const set = (values: { idleMs: number } | { lastSeenAtMs: number }) =>
    store.write((tx) => tx.updateTable('sessions').set(values).execute());
  await set({ idleMs: 250_000 });
  const first = await look(known, rows);
  await set({ lastSeenAtMs: startMs + 150_000 });
  t.is((await look(known, rows, startMs + 180_000)).subject, first.subject);
  // As it was first read it would end within the minute.
  const again = await look(known, rows, startMs + 200_000);
  t.is(again.subject?.session.lastSeenAtMs, startMs + 150_000);
  known.forgetSession({ id: tunnel.session, deviceId: tunnel.device });
  t.not((await look(known, rows, startMs + 200_000)).subject, again.subject);
});

test('known facts - what changed while it was read is read again', async (t) => {
  const rows = await addRows(t);
  const { store, tunnel } = rows;
  const known = new KnownFacts();
  const stamps = await known.stamps(store.db, [tunnel], startMs);
  const rename = (name: string) =>
    store.write((tx) => tx.updateTable('users').set({ name }).execute());
  await rename('ben'); // after the stamps were read, and before the facts are
  const at = { stamps, nowMs: startMs, untilMs: startMs + 60_000 };
  const during = await known.subject(services, store.db, tunnel, at);
  t.is(during?.user.name, 'ben');
  await rename('carl');
  t.is((await look(known, rows)).subject?.user.name, 'carl');
});

test('known facts - what is not there is looked for each time, and what is of somebody else is not kept', async (t) => {
  const rows = await addRows(t);
  const known = new KnownFacts();
  const absent = { ...rows, tunnel: { ...rows.tunnel, session: newId('session') } };
  t.is((await look(known, absent)).subject, undefined);
  const foreign = { ...rows, tunnel: { ...rows.tunnel, user: newId('user') } };
  const first = await look(known, foreign);
  t.truthy(first.subject);
  t.not((await look(known, foreign)).subject, first.subject);
});
