import test from 'ava';
import { createLogger } from '../../../../protocol/host/index.ts';
import { Refusals, type AuditEntry } from '../../../../relay/control-plane/audit/index.ts';

test('Refusals - records so many of one address, and with the next how many are missing', async (t) => {
  let nowMs = 1_000;
  const rows: AuditEntry[] = [];
  const refusals = new Refusals({
    audit: { append: (entry) => Promise.resolve(void rows.push(entry) as never) },
    clock: { nowMs: () => nowMs },
    logger: createLogger({ program: 'test', write: () => undefined }),
  });
  const entry = {
    actor: 'address:x',
    action: 'identity.enrol',
    subject: 'x',
    details: { code: 1 },
  };
  for (let i = 0; i < 130; i++) await refusals.record(`2001:db8::${i}`, entry); // one /64
  t.is(rows.length, 120);
  t.true(rows.every((row) => row.outcome === 'refused'));
  await refusals.record('192.0.2.1', entry);
  t.deepEqual(rows.at(-1)?.details, { code: 1, unrecorded: 10 });
  nowMs += 1_000;
  await refusals.record('2001:db8::1', entry);
  t.deepEqual(rows.at(-1)?.details, { code: 1 });
});

test('Refusals - what could not be written is counted, and the refusal stands', async (t) => {
  const rows: AuditEntry[] = [];
  let isFull = true;
  const refusals = new Refusals({
    audit: {
      append: (entry) => {
        if (isFull) return Promise.reject(new Error('disk full'));
        rows.push(entry);
        return Promise.resolve({} as never);
      },
    },
    clock: { nowMs: () => 1_000 },
    logger: createLogger({ program: 'test', write: () => undefined }),
  });
  const entry = { actor: 'address:x', action: 'identity.enrol', subject: 'x' };
  await t.notThrowsAsync(refusals.record('192.0.2.1', entry));
  isFull = false;
  await refusals.record('192.0.2.1', entry);
  t.deepEqual(rows[0]?.details, { unrecorded: 1 });
});
