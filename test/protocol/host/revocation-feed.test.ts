import test from 'ava';
import { newId } from '../../../protocol/id.ts';
import {
  logBatchSchema,
  type LogBatch,
  type RevocationEntry,
} from '../../../protocol/revocation.ts';
import { signStatement } from '../../../protocol/statement.ts';
import { RevocationFeed } from '../../../protocol/host/revocation-feed.ts';
import { TestPki } from '../../support/pki.ts';

const pki = new TestPki();
const audience = newId('connector');
const subjects = {
  user: newId('user'),
  session: newId('session'),
  device: newId('device'),
  app: newId('app'),
  connector: audience,
  tunnel: newId('tunnel'),
};

function entry(position: number, device: string = subjects.device): RevocationEntry {
  const subject = { kind: 'device', id: device } as RevocationEntry['subject'];
  return { position, action: 'revoke', subject, reason: 'lost' };
}

function batch(changes: Partial<LogBatch> = {}, key = pki.grantKey): string {
  const plain = { audience, incarnation: 1, entries: [], completeTo: 0 };
  return signStatement('log', logBatchSchema, { ...plain, ...changes }, key);
}

function newFeed(nowMs: () => number = () => 1_000) {
  return new RevocationFeed({ audience, clock: { nowMs } });
}

test('RevocationFeed - answers each entry once', (t) => {
  const feed = newFeed();
  const entries = [entry(1), entry(2, newId('device'))];
  t.deepEqual(feed.receive(batch({ entries, completeTo: 2 }), pki.bundle), entries);
  t.deepEqual(feed.receive(batch({ entries, completeTo: 2 }), pki.bundle), []);
  const third = entry(3);
  t.deepEqual(feed.receive(batch({ entries: [...entries, third], completeTo: 3 }), pki.bundle), [
    third,
  ]);
});

test('RevocationFeed - revokes only what comes after a position', (t) => {
  const feed = newFeed();
  feed.receive(batch({ entries: [entry(5)], completeTo: 5 }), pki.bundle);
  t.is(feed.isRevokedAfter(subjects, 1, 4)?.position, 5);
  t.is(feed.isRevokedAfter(subjects, 1, 5), undefined);
  t.is(feed.isRevokedAfter({ ...subjects, device: newId('device') }, 1, 4), undefined);
});

test('RevocationFeed - every kind of subject revokes', (t) => {
  for (const [kind, id] of Object.entries(subjects)) {
    const feed = newFeed();
    const subject = { kind, id } as RevocationEntry['subject'];
    feed.receive(batch({ entries: [{ ...entry(1), subject }], completeTo: 1 }), pki.bundle);
    t.is(feed.isRevokedAfter(subjects, 1, 0)?.subject.kind, subject.kind);
  }
});

test('RevocationFeed - refuses other signers, other audiences and a past incarnation', (t) => {
  const feed = newFeed();
  const refused = { code: 'ERR_STATEMENT_REFUSED' };
  t.throws(() => feed.receive(batch({}, pki.root), pki.bundle), refused);
  t.throws(() => feed.receive(batch({ audience: newId('connector') }), pki.bundle), refused);
  feed.receive(batch({ incarnation: 2 }), pki.bundle);
  t.throws(() => feed.receive(batch({ incarnation: 1, completeTo: 9 }), pki.bundle), refused);
  t.is(feed.completeTo, 0);
});

test('RevocationFeed - a new incarnation counts anew and what was revoked before stays so', (t) => {
  const feed = newFeed();
  feed.receive(batch({ entries: [entry(50)], completeTo: 50 }), pki.bundle);
  t.deepEqual(feed.receive(batch({ incarnation: 2, completeTo: 3 }), pki.bundle), []);
  t.is(feed.completeTo, 3);
  t.is(feed.isRevokedAfter(subjects, 1, 49)?.position, 50);
  t.is(feed.isRevokedAfter(subjects, 2, 0), undefined);
  feed.receive(batch({ incarnation: 2, entries: [entry(4)], completeTo: 4 }), pki.bundle);
  t.is(feed.isRevokedAfter(subjects, 1, 60)?.position, 4);
});

test('RevocationFeed - waits until it is complete up to a position', async (t) => {
  const feed = newFeed();
  const waiting = feed.waitFor(7, 1);
  feed.receive(batch({ completeTo: 6 }), pki.bundle);
  feed.receive(batch({ completeTo: 7 }), pki.bundle);
  t.true(await waiting);
  t.true(await feed.waitFor(7, 1));
});

test('RevocationFeed - is not complete for a position that does not come, or of a past incarnation', async (t) => {
  const feed = newFeed();
  feed.receive(batch({ completeTo: 6 }), pki.bundle);
  t.false(await feed.waitFor(7, 1, 10));
  const waiting = feed.waitFor(7, 1);
  feed.receive(batch({ incarnation: 2, completeTo: 9 }), pki.bundle);
  t.false(await waiting);
  t.false(await feed.waitFor(1, 1));
});

test('RevocationFeed - keeps entries for longer than a grant lives, not for ever', (t) => {
  let nowMs = 1_000_000;
  const feed = newFeed(() => nowMs);
  feed.receive(batch({ entries: [entry(1)], completeTo: 1 }), pki.bundle);
  nowMs += 2 * 60_000;
  feed.receive(batch({ completeTo: 1 }), pki.bundle);
  t.is(feed.isRevokedAfter(subjects, 1, 0)?.position, 1);
  nowMs += 10 * 60_000;
  feed.receive(batch({ completeTo: 1 }), pki.bundle);
  t.is(feed.isRevokedAfter(subjects, 1, 0), undefined);
});
