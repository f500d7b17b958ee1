import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import ava, { type ExecutionContext } from 'ava';
import {
  cutReceiptSchema,
  newId,
  rawPublicKey,
  signingKey,
  signStatement,
  verifyingKey,
  type CutReceipt,
} from '../../../../protocol/index.ts';
import {
  createAuditLog,
  verifyAudit,
  type AuditEntry,
} from '../../../../relay/control-plane/audit/index.ts';
import { onEveryStore, openTestStore, TestClock } from '../fixture.ts';

const test = onEveryStore(ava);

const newKey = () => generateKeyPairSync('ed25519').privateKey;
const textOf = (key: KeyObject) => rawPublicKey(key).toString('base64url');

function receiptOf(by: CutReceipt['by']): CutReceipt {
  return {
    by,
    tunnel: newId('tunnel'),
    generation: 1,
    action: 'revoke',
    reason: 'revoked_by_admin',
    incarnation: 1,
    position: 1,
    cutAtMs: 2,
    lastByteAtMs: 1,
    bytesUp: 0,
    bytesDown: 0,
  };
}

/** The record of a receipt, signed by `key`; of another key, where one is told. */
function cut(receipt: CutReceipt, key: KeyObject, toldKey = key): AuditEntry {
  const statement = signStatement('receipt', cutReceiptSchema, receipt, signingKey(key));
  return {
    actor: `${receipt.by.startsWith('con_') ? 'connector' : 'relay'}:${receipt.by}`,
    action: 'tunnel.cut',
    subject: receipt.tunnel,
    outcome: 'ok',
    details: { receipt: statement, key: textOf(toldKey) },
  };
}

function named(relay: string, key: KeyObject): AuditEntry {
  return {
    actor: `relay:${relay}`,
    action: 'relay.receipt_key',
    subject: relay,
    outcome: 'ok',
    details: { key: textOf(key) },
  };
}

async function open(t: ExecutionContext) {
  const store = await openTestStore(t);
  const clock = new TestClock();
  const key = signingKey(newKey());
  const log = createAuditLog({ store, key, clock, writer: 'cp1' });
  const site = newId('site');
  const connector = newId('connector');
  const connectorKey = newKey();
  await store.write(async (tx) => {
    await tx.insertInto('sites').values({ id: site, name: 'office', createdAtMs: 1 }).execute();
    await tx
      .insertInto('connectors')
      .values({
        id: connector,
        name: 'office-1',
        siteId: site,
        signingKey: textOf(connectorKey),
        noiseKey: 'n',
        certificateSerial: null,
        certificateNotAfterMs: null,
        instance: null,
        state: 'enrolled',
        createdAtMs: 1,
        lastSeenAtMs: null,
        replacedJson: '[]',
      })
      .execute();
  });
  const write = (entries: readonly AuditEntry[]) =>
    store.write(async (tx) => {
      for (const entry of entries) {
        clock.advance(1_000);
        await log.append(entry, tx);
      }
    });
  const verdict = () => verifyAudit(store.db, [verifyingKey(rawPublicKey(key.privateKey))]);
  return { store, clock, log, site, connector, connectorKey, write, verdict };
}

test('verifyAudit - accepts receipts under a connector’s own key, and a key that a relay named', async (t) => {
  const { connector, connectorKey, write, verdict } = await open(t);
  const relay = newId('relay');
  const [old, young] = [newKey(), newKey()];
  await write([
    cut(receiptOf(connector), connectorKey),
    named(relay, old),
    cut(receiptOf(relay), old),
    named(relay, young),
    cut(receiptOf(relay), young),
    cut(receiptOf(relay), old),
  ]);
  t.like(await verdict(), { isIntact: true, records: 6 });
});

test('verifyAudit - names the first record of a cut tunnel whose receipt proves nothing', async (t) => {
  const { store, connector, connectorKey, write, verdict } = await open(t);
  const relay = newId('relay');
  const [relayKey, strange] = [newKey(), newKey()];
  const whole = cut(receiptOf(connector), connectorKey);
  const bad: Readonly<Record<string, AuditEntry>> = {
    'signed by another': cut(receiptOf(connector), strange, connectorKey),
    'a key that is not the connector’s': cut(receiptOf(connector), strange),
    'a key that the relay has not named': cut(receiptOf(relay), strange),
    'a key that another relay named': cut(receiptOf(newId('relay')), relayKey),
    'another tunnel': { ...whole, subject: newId('tunnel') },
    'another actor': { ...whole, actor: `connector:${newId('connector')}` },
    'no receipt': { ...whole, details: { key: textOf(connectorKey) } },
    'no key': { ...whole, details: { receipt: whole.details?.['receipt'] } },
    'a key that is none': { ...whole, details: { ...whole.details, key: 'AAAA' } },
  };
  for (const [what, entry] of Object.entries(bad)) {
    await write([named(relay, relayKey), whole, entry, whole, entry]);
    t.deepEqual((await verdict()).firstBad, { writer: 'cp1', position: 3, fault: 'receipt' }, what);
    await store.write((tx) => tx.deleteFrom('audit').execute());
  }
});

test('verifyAudit - wants a relay’s key named before the receipt, not after', async (t) => {
  const { write, verdict } = await open(t);
  const relay = newId('relay');
  const key = newKey();
  await write([cut(receiptOf(relay), key), named(relay, key)]);
  t.deepEqual((await verdict()).firstBad, { writer: 'cp1', position: 1, fault: 'receipt' });
});

test('verifyAudit - lets one key count for what a relay named in records that were pruned', async (t) => {
  const { write, verdict, log, clock } = await open(t);
  const relay = newId('relay');
  const [key, strange] = [newKey(), newKey()];
  await write([named(relay, key), cut(receiptOf(relay), key), cut(receiptOf(relay), key)]);
  t.is((await log.prune(clock.nowMs() - 1_000, 'uid:0')).firstKept, 2);
  t.like(await verdict(), { isIntact: true });
  await write([cut(receiptOf(relay), strange)]);
  t.like((await verdict()).firstBad, { position: 5, fault: 'receipt' });
});

test('verifyAudit - keeps to one key of a connector that is gone with its site', async (t) => {
  const { store, connector, connectorKey, write, verdict } = await open(t);
  await write([cut(receiptOf(connector), connectorKey)]);
  await store.write((tx) => tx.deleteFrom('connectors').where('id', '=', connector).execute());
  t.like(await verdict(), { isIntact: true });
  await write([cut(receiptOf(connector), newKey())]);
  t.like((await verdict()).firstBad, { position: 2, fault: 'receipt' });
});
