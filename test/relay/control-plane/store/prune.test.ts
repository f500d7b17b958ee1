import ava from 'ava';
import { newId, type DecisionId, type TunnelId } from '../../../../protocol/index.ts';
import { historyKeptMs, revocationsKeptMs } from '../../../../relay/control-plane/limits.ts';
import { openRevocationLog } from '../../../../relay/control-plane/revocation/index.ts';
import {
  pruneStore,
  type Decision,
  type Store,
  type Tunnel,
} from '../../../../relay/control-plane/store/index.ts';
import { onEveryStore, openTestStore as open } from '../fixture.ts';

const test = onEveryStore(ava);

const nowMs = 2_000_000_000_000;
const agedMs = nowMs - historyKeptMs - 1;

async function addDecision(store: Store, changes: Partial<Decision>): Promise<DecisionId> {
  const row: Decision = {
    id: newId('decision'),
    userId: newId('user'),
    deviceId: newId('device'),
    sessionId: null,
    appId: null,
    appName: 'wiki',
    tunnelId: null,
    verdict: 'deny',
    reasonsJson: '[]',
    errorsJson: '[]',
    inputsJson: '{}',
    inputDigest: '',
    policyVersion: 1,
    decidedAtMs: agedMs,
    confirmations: 0,
    lastConfirmedAtMs: agedMs,
    ...changes,
  };
  await store.write((tx) => tx.insertInto('decisions').values(row).execute());
  return row.id;
}

async function addTunnel(store: Store, changes: Partial<Tunnel>): Promise<TunnelId> {
  const row: Tunnel = {
    id: newId('tunnel'),
    userId: newId('user'),
    sessionId: newId('session'),
    deviceId: newId('device'),
    appId: newId('app'),
    connectorId: newId('connector'),
    instance: newId('instance'),
    relayId: null,
    decisionId: newId('decision'),
    version: 2,
    generation: 1,
    fencing: 1,
    owner: null,
    state: 'open',
    holdMs: 300_000,
    detachedAtMs: null,
    suspendedFor: null,
    suspensionFix: null,
    grantExpiresAtMs: agedMs,
    untilMs: agedMs,
    openedAtMs: agedMs,
    closedAtMs: null,
    closeReason: null,
    closeCode: null,
    bytesUp: 0,
    bytesDown: 0,
    relaysJson: '[]',
    createdAtMs: agedMs,
    ...changes,
  };
  await store.write((tx) => tx.insertInto('tunnels').values(row).execute());
  return row.id;
}

async function ids(store: Store, table: 'decisions' | 'tunnels'): Promise<string[]> {
  const rows = await store.db.selectFrom(table).select('id').execute();
  return rows.map(({ id }): string => id).sort();
}

test('pruneStore - forgets aged decisions and closed tunnels, and nothing that an open tunnel is about', async (t) => {
  const store = await open(t);
  const first = newId('decision');
  const present = newId('decision');
  const live = await addTunnel(store, { decisionId: present });
  const closedLately = await addTunnel(store, { state: 'closed', closedAtMs: nowMs });
  const closed = await addTunnel(store, { state: 'closed', closedAtMs: agedMs });
  const kept = [
    await addDecision(store, { id: first, tunnelId: live }),
    await addDecision(store, { id: present }),
    await addDecision(store, { lastConfirmedAtMs: nowMs }),
    await addDecision(store, { decidedAtMs: agedMs + 1, lastConfirmedAtMs: agedMs + 1 }),
  ];
  for (let i = 0; i < 5; i++) await addDecision(store, { tunnelId: i === 0 ? closed : null });
  const pruned = await pruneStore(store, nowMs, 2);
  t.deepEqual(pruned, { decisions: 5, tunnels: 1, revocations: 0 });
  t.deepEqual(await ids(store, 'decisions'), [...kept].sort());
  t.deepEqual(await ids(store, 'tunnels'), [live, closedLately].sort());
});

test('pruneStore - forgets aged revocations but the newest, so that positions never go back', async (t) => {
  const store = await open(t);
  let atMs = nowMs - revocationsKeptMs - 1;
  const log = await openRevocationLog(store, { nowMs: () => atMs });
  const append = () =>
    store.write((tx) =>
      log.append(tx, {
        action: 'revoke',
        subject: { kind: 'user', id: newId('user') },
        reason: 'test',
      }),
    );
  for (let i = 0; i < 5; i++) await append();
  await store.write((tx) => log.raiseIncarnation(tx));
  for (let i = 0; i < 5; i++) await append();
  t.is((await pruneStore(store, nowMs, 2)).revocations, 9);
  t.deepEqual(await log.head(store.db), { incarnation: 2, position: 5 });
  t.is((await pruneStore(store, nowMs)).revocations, 0);

  t.is((await append()).position, 6);
  t.is((await pruneStore(store, nowMs)).revocations, 1);
  atMs = nowMs - revocationsKeptMs;
  t.is((await append()).position, 7);
  t.is((await append()).position, 8);
  t.is((await pruneStore(store, nowMs)).revocations, 1);
  t.deepEqual(
    (await log.since(store.db, 0)).map(({ position }) => position),
    [7, 8],
  );
});
