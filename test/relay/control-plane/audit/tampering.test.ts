import { generateKeyPairSync } from 'node:crypto';
import test, { type ExecutionContext } from 'ava';
import { rawPublicKey, signingKey, verifyingKey } from '../../../../protocol/index.ts';
import {
  AuditVerifier,
  createAuditLog,
  recordHash,
  type AuditRecord,
  type AuditVerdict,
} from '../../../../relay/control-plane/audit/index.ts';
import { openTestStore, TestClock } from '../fixture.ts';

const length = 40;
const signedEvery = 7;

type Check = (records: readonly AuditRecord[]) => AuditVerdict;

/** A chain of real records, signed every few and at its end, and what checks a copy of it. */
async function writeChain(t: ExecutionContext): Promise<[readonly AuditRecord[], Check]> {
  const store = await openTestStore(t);
  const clock = new TestClock();
  const key = signingKey(generateKeyPairSync('ed25519').privateKey);
  const options = { store, key, clock, writer: 'cp1', checkpointEvery: signedEvery };
  const log = createAuditLog(options);
  await store.write(async (tx) => {
    for (let i = 1; i <= length; i++) {
      clock.advance(1_000);
      const user = i % 3 === 0 ? null : `user${String(i)}`;
      const subject = `tun_${String(i)}`;
      const details = { index: i };
      await log.append(
        { actor: 'system', action: 'tunnel.end', subject, outcome: 'ok', user, details },
        tx,
      );
    }
  });
  await log.checkpoint();
  const rows = await store.db.selectFrom('checkpoints').select('statement').execute();
  const statements = rows.map(({ statement }) => statement);
  const keys = [verifyingKey(rawPublicKey(key.privateKey))];
  const check: Check = (records) => {
    const verifier = new AuditVerifier(keys, statements);
    for (const record of records) verifier.add(record);
    return verifier.finish();
  };
  return [await log.read(), check];
}

const isSigned = (position: number) => position % signedEvery === 0 || position === length;

/** The first signed position from there on. */
function signedFrom(position: number): number {
  let signed = position;
  while (!isSigned(signed)) signed++;
  return signed;
}

/** The same chain with another record in a place. */
function replaced(chain: readonly AuditRecord[], position: number, by: AuditRecord): AuditRecord[] {
  return chain.with(position - 1, by);
}

const sealed = (record: AuditRecord): AuditRecord => ({ ...record, hash: recordHash(record) });

/** Chains records anew from a position on, as one who can write all but the signatures. */
function rechained(records: readonly AuditRecord[], from: number): AuditRecord[] {
  let before: AuditRecord | undefined;
  return records.map((record, index) => {
    if (index + 1 >= from) {
      const place = { position: index + 1, previous: before?.hash ?? '0'.repeat(64) };
      record = sealed({ ...record, ...place });
    }
    before = record;
    return record;
  });
}

const alterations: readonly ((record: AuditRecord) => Partial<AuditRecord>)[] = [
  ({ atMs }) => ({ atMs: atMs + 1 }),
  () => ({ actor: 'uid:0' }),
  () => ({ action: 'tunnel.open' }),
  ({ subject }) => ({ subject: `${subject}0` }),
  () => ({ outcome: 'failed' }),
  () => ({ ref: '' }),
  ({ userName }) => ({ userName: userName === null ? '' : null }),
  () => ({ appName: 'wiki' }),
  ({ detailsJson }) => ({ detailsJson: `${detailsJson} ` }),
  ({ hash }) => ({ hash: (hash.startsWith('0') ? '1' : '0') + hash.slice(1) }),
];

test('AuditVerifier - accepts the chain that the tampering below starts from', async (t) => {
  const [chain, check] = await writeChain(t);
  t.deepEqual(check(chain), {
    isIntact: true,
    firstBad: null,
    records: length,
    checkpoints: Math.floor(length / signedEvery) + 1,
  });
});

test('AuditVerifier - names any record of which any part was altered', async (t) => {
  const [chain, check] = await writeChain(t);
  for (const record of chain) {
    const { position } = record;
    for (const alter of alterations) {
      const { firstBad } = check(replaced(chain, position, { ...record, ...alter(record) }));
      t.like(firstBad, { position, fault: 'altered' });
    }
    const unchained = sealed({ ...record, previous: 'f'.repeat(64) });
    t.like(check(replaced(chain, position, unchained)).firstBad, { position, fault: 'reordered' });
  }
});

test('AuditVerifier - names where any record sealed anew breaks the chain', async (t) => {
  const [chain, check] = await writeChain(t);
  for (const record of chain) {
    const { position } = record;
    const forged = replaced(chain, position, sealed({ ...record, actor: 'uid:0' }));
    t.like(
      check(forged).firstBad,
      isSigned(position)
        ? { position, fault: 'checkpoint' }
        : { position: position + 1, fault: 'reordered' },
    );
    t.like(check(rechained(forged, position)).firstBad, {
      position: signedFrom(position),
      fault: 'checkpoint',
    });
  }
});

test('AuditVerifier - names any record that was deleted', async (t) => {
  const [chain, check] = await writeChain(t);
  for (const { position } of chain) {
    const without = chain.filter((record) => record.position !== position);
    t.like(check(without).firstBad, { position, fault: 'deleted' });
    const cut = chain.filter((record) => record.position < position);
    t.like(check(cut).firstBad, { position, fault: 'deleted' });
    const headless = chain.filter((record) => record.position > position);
    t.like(check(headless).firstBad, { position: 1, fault: 'deleted' });
    // The gap closed, by numbering and chaining anew: only the signatures tell.
    const { firstBad } = check(rechained(without, position));
    t.is(firstBad?.position, signedFrom(position));
  }
});

test('AuditVerifier - names the first of any two records that changed places', async (t) => {
  const [chain, check] = await writeChain(t);
  for (const first of chain) {
    for (const second of chain.slice(first.position)) {
      const inFile = replaced(replaced(chain, first.position, second), second.position, first);
      t.like(check(inFile).firstBad, { position: first.position, fault: 'deleted' });
      const inStore = inFile.map((record, index) => ({ ...record, position: index + 1 }));
      t.like(check(inStore).firstBad, { position: first.position });
      t.like(check(inStore.map(sealed)).firstBad, { position: first.position });
    }
  }
});

test('AuditVerifier - names any record that is there twice', async (t) => {
  const [chain, check] = await writeChain(t);
  for (const record of chain) {
    const { position } = record;
    const twice = chain.flatMap((one) => (one === record ? [one, one] : [one]));
    t.like(check(twice).firstBad, { position, fault: 'reordered' });
    const inserted = chain.flatMap((one) => (one === record ? [one, { ...one }] : [one]));
    const renumbered = inserted.map((one, index) => ({ ...one, position: index + 1 }));
    t.like(check(renumbered).firstBad, { position: position + 1 });
  }
});
