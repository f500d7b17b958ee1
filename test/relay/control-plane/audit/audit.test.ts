import { generateKeyPairSync } from 'node:crypto';
import ava, { type ExecutionContext } from 'ava';
import {
  rawPublicKey,
  signingKey,
  verifyingKey,
  type SigningKey,
} from '../../../../protocol/index.ts';
import {
  AuditVerifier,
  createAuditLog,
  exportRecord,
  parseExportedRecord,
  recordHash,
  verifyAudit,
  type AuditLog,
  type AuditRecord,
} from '../../../../relay/control-plane/audit/index.ts';
import { openTestStore, startMs, TestClock, onEveryStore } from '../fixture.ts';
import type { Store } from '../../../../relay/control-plane/store/index.ts';

const test = onEveryStore(ava);

interface Rig {
  readonly store: Store;
  readonly log: AuditLog;
  readonly key: SigningKey;
  readonly clock: TestClock;
}

async function open(t: ExecutionContext, checkpointEvery = 4): Promise<Rig> {
  const store = await openTestStore(t);
  const clock = new TestClock();
  const key = signingKey(generateKeyPairSync('ed25519').privateKey);
  return {
    store,
    key,
    clock,
    log: createAuditLog({ store, key, clock, writer: 'cp1', checkpointEvery }),
  };
}

async function fill(rig: Rig, count: number): Promise<void> {
  for (let i = 1; i <= count; i++) {
    rig.clock.advance(1_000);
    await rig.log.append({
      actor: 'admin:uid=0',
      action: 'user.add',
      subject: `user${String(i)}`,
      outcome: 'ok',
      user: i % 2 === 0 ? 'anna' : 'ben',
      details: { index: i },
    });
  }
}

const publicKeys = (key: SigningKey) => [verifyingKey(rawPublicKey(key.privateKey))];

async function verdict({ store, key }: Rig) {
  return verifyAudit(store.db, publicKeys(key));
}

/** Does what someone with the database file could. */
async function tamper(
  rig: Rig,
  change: (record: AuditRecord) => Partial<AuditRecord>,
  position: number,
) {
  const record = await rig.store.db
    .selectFrom('audit')
    .selectAll()
    .where('position', '=', position)
    .executeTakeFirstOrThrow();
  await rig.store.write((tx) =>
    tx.updateTable('audit').set(change(record)).where('position', '=', position).execute(),
  );
}

test('append - chains records and signs every so many', async (t) => {
  const rig = await open(t);
  await fill(rig, 9);
  const records = await rig.log.read();
  t.deepEqual(
    records.map((record) => record.position),
    [1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  t.is(records[4]?.previous, records[3]?.hash);
  t.deepEqual(await verdict(rig), { isIntact: true, firstBad: null, records: 9, checkpoints: 2 });
});

test('append - stands or falls with the change it tells of', async (t) => {
  const rig = await open(t);
  const heard: string[] = [];
  rig.log.onAppend((record) => heard.push(record.subject));
  const entry = { actor: 'system', action: 'test.run', outcome: 'ok' } as const;
  await t.throwsAsync(
    rig.store.write(async (tx) => {
      await rig.log.append({ ...entry, subject: 'lost' }, tx);
      throw new Error('no');
    }),
  );
  await rig.store.write(async (tx) => {
    await rig.log.append({ ...entry, subject: 'first' }, tx);
    await rig.log.append({ ...entry, subject: 'second' }, tx);
    t.deepEqual(heard, []);
  });
  t.deepEqual(heard, ['first', 'second']);
  t.deepEqual(
    (await rig.log.read()).map((record) => record.subject),
    ['first', 'second'],
  );
});

test('append - keeps one order among many at once', async (t) => {
  const rig = await open(t);
  await Promise.all(Array.from({ length: 30 }, () => fill(rig, 1)));
  t.like(await verdict(rig), { isIntact: true, records: 30 });
});

test('append - escapes what would break a line or fool a reader', async (t) => {
  const rig = await open(t);
  const hostile = 'a\r\n\u001b[31m\u0000\u202e\ud800"}';
  const record = await rig.log.append({
    actor: hostile,
    action: 'user.add',
    subject: 'x'.repeat(5_000),
    outcome: 'refused',
    ref: hostile,
    details: { deep: [{ text: hostile }] },
  });
  t.is(record.actor, 'a\\u000d\\u000a\\u001b[31m\\u0000\\u202e\ufffd"}');
  t.true(record.subject.length < 1_100);

  t.notRegex(record.detailsJson, /[\u0000-\u001f\u202e]/);
  t.true((await verdict(rig)).isIntact);
});

test('append - goes on with the chain after a restart', async (t) => {
  const rig = await open(t);
  await fill(rig, 2);
  const again = createAuditLog({ ...rig, writer: 'cp1' });
  await fill({ ...rig, log: again }, 1);
  t.like(await verdict(rig), { isIntact: true, records: 3 });
});

test('verifyAudit - names the first altered record, whatever part was altered', async (t) => {
  const changes: Partial<AuditRecord>[] = [
    { actor: 'someone' },
    { action: 'user.remove' },
    { subject: 'user9' },
    { outcome: 'failed' },
    { atMs: 1 },
    { ref: 'dec_1' },
    { userName: null },
    { appName: 'wiki' },
    { detailsJson: '{"index":30}' },
    { hash: '0'.repeat(64) },
  ];
  const rig = await open(t);
  await fill(rig, 6);
  for (const change of changes) {
    const [before] = (await rig.log.read()).filter((record) => record.position === 3);
    await tamper(rig, () => change, 3);
    t.deepEqual((await verdict(rig)).firstBad, { writer: 'cp1', position: 3, fault: 'altered' });
    await tamper(rig, () => before!, 3);
    t.true((await verdict(rig)).isIntact);
  }
});

test('verifyAudit - finds an altered record whose own hash was made anew', async (t) => {
  const rig = await open(t);
  await fill(rig, 6);
  await tamper(
    rig,
    (record) => {
      const forged = { ...record, subject: 'forged' };
      return { ...forged, hash: recordHash(forged) };
    },
    2,
  );
  t.deepEqual((await verdict(rig)).firstBad, { writer: 'cp1', position: 3, fault: 'reordered' });
});

test('verifyAudit - finds a chain forged to its end by its signed heads', async (t) => {
  const rig = await open(t, 4);
  await fill(rig, 5);
  let previous: string | undefined;
  for (let position = 2; position <= 5; position++) {
    await tamper(
      rig,
      (record) => {
        const forged = { ...record, actor: 'forged', previous: previous ?? record.previous };
        previous = recordHash(forged);
        return { ...forged, hash: previous };
      },
      position,
    );
  }
  t.deepEqual((await verdict(rig)).firstBad, { writer: 'cp1', position: 4, fault: 'checkpoint' });
});

test('verifyAudit - names the first deleted record, also at either end', async (t) => {
  for (const position of [1, 3, 8]) {
    const rig = await open(t, 4);
    await fill(rig, 8);
    await rig.store.write((tx) =>
      tx.deleteFrom('audit').where('position', '=', position).execute(),
    );
    t.deepEqual((await verdict(rig)).firstBad, { writer: 'cp1', position, fault: 'deleted' });
  }
});

test('verifyAudit - misses no chain that is gone altogether', async (t) => {
  const rig = await open(t, 4);
  await fill(rig, 5);
  await rig.store.write((tx) => tx.deleteFrom('audit').execute());
  t.deepEqual((await verdict(rig)).firstBad, { writer: 'cp1', position: 1, fault: 'deleted' });
});

test('verifyAudit - names the first of two records that changed places', async (t) => {
  const rig = await open(t, 100);
  await fill(rig, 6);
  await tamper(rig, () => ({ position: 100 }), 3);
  await tamper(rig, () => ({ position: 3 }), 5);
  await tamper(rig, () => ({ position: 5 }), 100);
  t.deepEqual((await verdict(rig)).firstBad, { writer: 'cp1', position: 3, fault: 'reordered' });
});

test('verifyAudit - finds a cut-off end by a checkpoint kept elsewhere', async (t) => {
  const rig = await open(t, 100);
  await fill(rig, 6);
  const checkpoint = await rig.log.checkpoint();
  t.like(checkpoint, { writer: 'cp1', position: 6 });
  t.is(await rig.log.checkpoint(), undefined);
  const { statement } = await rig.store.db
    .selectFrom('checkpoints')
    .selectAll()
    .executeTakeFirstOrThrow();
  await rig.store.write(async (tx) => {
    await tx.deleteFrom('checkpoints').execute();
    await tx.deleteFrom('audit').where('position', '>', 4).execute();
  });
  t.true((await verdict(rig)).isIntact);
  const { firstBad } = await verifyAudit(rig.store.db, publicKeys(rig.key), [statement]);
  t.deepEqual(firstBad, { writer: 'cp1', position: 5, fault: 'deleted' });
});

test('verifyAudit - refuses checkpoints by another key', async (t) => {
  const rig = await open(t, 2);
  await fill(rig, 2);
  const other = signingKey(generateKeyPairSync('ed25519').privateKey);
  const { firstBad } = await verifyAudit(rig.store.db, publicKeys(other));
  t.deepEqual(firstBad, { writer: 'cp1', position: 2, fault: 'checkpoint' });
});

test('exportRecord - is enough to check the chain by, line by line', async (t) => {
  const rig = await open(t, 3);
  await fill(rig, 5);
  const lines = (await rig.log.read()).map((record) => JSON.stringify(exportRecord(record)));
  const statements = (await rig.store.db.selectFrom('checkpoints').selectAll().execute()).map(
    (row) => row.statement,
  );
  const check = (texts: readonly string[]) => {
    const verifier = new AuditVerifier(publicKeys(rig.key), statements);
    for (const text of texts) verifier.add(parseExportedRecord(text));
    return verifier.finish();
  };
  t.like(check(lines), { isIntact: true, records: 5, checkpoints: 1 });
  const swapped = [lines[0], lines[2], lines[1], lines[3], lines[4]] as string[];
  t.like(check(swapped).firstBad, { position: 2, fault: 'deleted' });
  const altered = lines.map((line, i) => (i === 3 ? line.replace('user4', 'user5') : line));
  t.like(check(altered).firstBad, { position: 4, fault: 'altered' });
  t.throws(() => parseExportedRecord('{"writer":"cp1"}'), { code: 'ERR_CONFIG_INVALID' });
  t.throws(() => parseExportedRecord('nothing'), { code: 'ERR_CONFIG_INVALID' });
});

test('read - filters by time, user, place in the chain and number', async (t) => {
  const rig = await open(t);
  await fill(rig, 6);
  const subjects = async (query: Parameters<AuditLog['read']>[0]) =>
    (await rig.log.read(query)).map((record) => record.subject);
  t.deepEqual(await subjects({ user: 'anna' }), ['user2', 'user4', 'user6']);
  t.deepEqual(await subjects({ sinceMs: startMs + 5_000 }), ['user5', 'user6']);
  t.deepEqual(await subjects({ untilMs: startMs + 2_000 }), ['user1']);
  t.deepEqual(await subjects({ limit: 2, latest: true }), ['user5', 'user6']);
  t.deepEqual(await subjects({ after: { cp1: 3 }, limit: 2 }), ['user4', 'user5']);
  t.deepEqual(await subjects({ app: 'wiki' }), []);
});

test('prune - forgets what is older, and what is kept verifies behind a signed start', async (t) => {
  const rig = await open(t);
  await fill(rig, 10);
  const before = startMs + 7_000; // the seventh record's own time, which is kept
  t.deepEqual(await rig.log.prune(before, 'uid:0'), { records: 6, firstKept: 7 });
  const rows = await rig.log.read();
  t.deepEqual(
    rows.map(({ position }) => position),
    [7, 8, 9, 10, 11],
  );
  t.like(rows.at(-1), { action: 'audit.prune', actor: 'uid:0' });
  t.like(await verdict(rig), { isIntact: true, records: 5 });

  await fill(rig, 5);
  await rig.log.checkpoint();
  t.deepEqual(await rig.log.prune(before, 'uid:0'), { records: 0, firstKept: 7 });
  t.is((await rig.log.prune(startMs + 12_000, 'uid:0')).firstKept, 13);
  t.like(await verdict(rig), { isIntact: true });
});

test('prune - keeps the newest record, whatever the time', async (t) => {
  const rig = await open(t);
  t.is((await rig.log.prune(Number.MAX_SAFE_INTEGER, 'uid:0')).records, 0);
  await fill(rig, 3);
  t.deepEqual(await rig.log.prune(Number.MAX_SAFE_INTEGER, 'uid:0'), { records: 2, firstKept: 3 });
  t.deepEqual(
    (await rig.log.read()).map(({ position }) => position),
    [3, 4],
  );
  t.like(await verdict(rig), { isIntact: true });
});

test('verifyAudit - finds records cut off at the start by anyone but prune', async (t) => {
  const rig = await open(t);
  await fill(rig, 10); // signed at 4 and 8
  await rig.log.prune(startMs + 3_000, 'uid:0');
  const cut = (position: number) =>
    rig.store.write((tx) => tx.deleteFrom('audit').where('position', '<=', position).execute());
  await cut(3);
  t.like((await verdict(rig)).firstBad, { position: 3, fault: 'deleted' });
  // An ordinary signed head is no start.
  await cut(4);
  t.like((await verdict(rig)).firstBad, { position: 3, fault: 'deleted' });
  // Nor does the chain begin anywhere once the signed start is gone.
  const other = await open(t);
  await fill(other, 10);
  await other.log.prune(startMs + 3_000, 'uid:0');
  await other.store.write((tx) => tx.deleteFrom('checkpoints').where('position', '=', 2).execute());
  t.like((await verdict(other)).firstBad, { position: 1, fault: 'deleted' });
});
