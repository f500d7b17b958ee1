import ava, { type ExecutionContext } from 'ava';
import {
  endExpiredSessions,
  endSessions,
  findLiveSession,
  isSessionLive,
  sessionEndMs,
  sessionMethods,
  startSession,
  touchSession,
} from '../../../../relay/control-plane/identity/index.ts';
import { addUser, enrolDevice, openTestStore, startMs, onEveryStore } from '../fixture.ts';

const test = onEveryStore(ava);

const limits = { idleMs: 60_000, absoluteMs: 600_000 };

async function setUp(t: ExecutionContext) {
  const store = await openTestStore(t);
  const user = await addUser(store, 'anna');
  const device = await enrolDevice(store, user.id);
  const start = (nowMs = startMs, notAfterMs: number | null = null, deviceId = device.id) =>
    store.write((tx) =>
      startSession(tx, {
        userId: user.id,
        deviceId,
        provider: 'local',
        methods: ['password', 'totp'],
        limits,
        notAfterMs,
        nowMs,
      }),
    );
  return { store, user, device, start };
}

test('startSession - replaces what the device had, and no other device’s', async (t) => {
  const { store, user, device, start } = await setUp(t);
  const other = await enrolDevice(store, user.id);
  const elsewhere = await start(startMs, null, other.id);
  const first = await start();
  t.deepEqual(first.replaced, []);
  t.deepEqual(sessionMethods(first.session), ['password', 'totp']);
  const second = await start(startMs + 1);
  t.deepEqual(second.replaced, [first.session.id]);
  t.is((await findLiveSession(store.db, device.id, startMs + 2))?.id, second.session.id);
  t.is((await findLiveSession(store.db, other.id, startMs + 2))?.id, elsewhere.session.id);
});

test('isSessionLive - ends when idle, unless it was used', async (t) => {
  const { store, device, start } = await setUp(t);
  const { session } = await start();
  t.is(sessionEndMs(session), startMs + 60_000);
  t.true(isSessionLive(session, startMs + 59_999));
  t.false(isSessionLive(session, startMs + 60_000));
  const touched = await store.write((tx) => touchSession(tx, session, startMs + 50_000));
  t.is(sessionEndMs(touched), startMs + 110_000);
  t.deepEqual(await findLiveSession(store.db, device.id, startMs + 60_000), touched);
  t.is(await findLiveSession(store.db, device.id, startMs + 110_000), undefined);
});

test('touchSession - never wakes what has ended, and writes no more than needed', async (t) => {
  const { store, start } = await setUp(t);
  const { session } = await start();
  const touch = (nowMs: number) => store.write((tx) => touchSession(tx, session, nowMs));
  t.is(await touch(startMs + 1_000), session);
  t.is(await touch(startMs + 60_000), session);
  await store.write((tx) => endSessions(tx, { id: session.id }, 'signed_out', startMs));
  await touch(startMs + 50_000);
  const row = await store.db.selectFrom('sessions').selectAll().executeTakeFirstOrThrow();
  t.like(row, { lastSeenAtMs: startMs, endedAtMs: startMs, endReason: 'signed_out' });
});

test('sessionEndMs - is the absolute end however much the session is used, and the end of the account', async (t) => {
  const { start } = await setUp(t);
  const { session } = await start();
  t.is(sessionEndMs({ ...session, lastSeenAtMs: startMs + 590_000 }), startMs + 600_000);
  const { session: short } = await start(startMs, startMs + 10_000);
  t.is(sessionEndMs(short), startMs + 10_000);
});

test('endSessions - ends a user’s everywhere and tells which, once', async (t) => {
  const { store, user, start } = await setUp(t);
  const other = await enrolDevice(store, user.id);
  const ids = [(await start()).session.id, (await start(startMs, null, other.id)).session.id];
  const end = () => store.write((tx) => endSessions(tx, { userId: user.id }, 'revoked', startMs));
  t.deepEqual((await end()).sort(), ids.sort());
  t.deepEqual(await end(), []);
});

test('endExpiredSessions - ends what has run out, with its reason', async (t) => {
  const { store, user, start } = await setUp(t);
  const other = await enrolDevice(store, user.id);
  const { session: idle } = await start();
  const { session: over } = await start(startMs, startMs + 30_000, other.id);
  const third = await enrolDevice(store, user.id);
  await start(startMs + 50_000, null, third.id);
  const ended = await store.write((tx) => endExpiredSessions(tx, startMs + 60_000));
  t.deepEqual(ended.map((session) => session.id).sort(), [idle.id, over.id].sort());
  const rows = await store.db.selectFrom('sessions').select(['id', 'endReason']).execute();
  const reasons = Object.fromEntries(rows.map((row) => [row.id, row.endReason]));
  t.is(reasons[idle.id], 'session_idle');
  t.is(reasons[over.id], 'session_expired');
  t.is(rows.filter((row) => row.endReason === null).length, 1);
});
