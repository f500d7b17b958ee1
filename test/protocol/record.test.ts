import { createSecretKey, randomBytes } from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import {
  maxBlocksPerKey,
  maxRecordBytes,
  maxRecordContentBytes,
  RecordOpener,
  RecordSealer,
} from '../../protocol/record.ts';
import { flipByte } from '../support/authority.ts';
import { sealAt } from '../support/noise-twin.ts';

const rawKey = randomBytes(32);
const newSealer = (maxBlocks?: number) => new RecordSealer(createSecretKey(rawKey), maxBlocks);
const newOpener = (maxBlocks?: number) => new RecordOpener(createSecretKey(rawKey), maxBlocks);
const sealOne = (sealer: RecordSealer, content: Uint8Array) =>
  Buffer.concat(sealer.seal([content]));
const tampered = { code: 'ERR_RECORD_TAMPERED' };
const exhausted = { code: 'ERR_RECORD_KEY_EXHAUSTED' };

test('RecordSealer - however the content is cut, records are those of a plain AES-GCM with a counter', (t) => {
  const parts = fc.array(fc.uint8Array({ maxLength: 9_000 }), { maxLength: 6 });
  fc.assert(
    fc.property(fc.array(parts, { maxLength: 4 }), (records) => {
      const sealer = newSealer();
      const opener = newOpener();
      records.forEach((record, index) => {
        const content = Buffer.concat(record);
        const sealed = Buffer.concat(sealer.seal(record));
        t.deepEqual(sealed, sealAt(rawKey, BigInt(index), content, Buffer.alloc(0)));
        t.deepEqual(opener.open(sealed), content);
      });
    }),
    { numRuns: 60 },
  );
});

test('RecordSealer - the parts and earlier pieces may be reused and kept', (t) => {
  const sealer = newSealer();
  const part = Buffer.from('first');
  const first = sealer.seal([part, part]);
  part.write('other');
  const second = sealer.seal([part, part]);
  const opener = newOpener();
  t.is(opener.open(Buffer.concat(first)).toString(), 'firstfirst');
  t.is(opener.open(Buffer.concat(second)).toString(), 'otherother');
});

test('RecordSealer - takes the largest content and nothing above it', (t) => {
  const sealer = newSealer();
  const record = sealOne(sealer, Buffer.alloc(maxRecordContentBytes, 1));
  t.is(record.length, maxRecordBytes);
  t.is(maxRecordBytes, 65_535);
  t.is(newOpener().open(record).length, maxRecordContentBytes);
  const half = Buffer.alloc(32_760);
  t.throws(() => sealer.seal([half, half]), { code: 'ERR_INTERNAL' });
  t.throws(() => sealer.seal([Buffer.alloc(maxRecordContentBytes + 1)]), { code: 'ERR_INTERNAL' });
});

test('RecordOpener - refuses a record longer than a record can be, or shorter than its tag', (t) => {
  t.throws(
    () =>
      newOpener().open(
        sealAt(rawKey, 0n, Buffer.alloc(maxRecordContentBytes + 1), Buffer.alloc(0)),
      ),
    tampered,
  );
  for (let length = 0; length < 16; length++) {
    t.throws(() => newOpener().open(Buffer.alloc(length)), tampered);
  }
});

test('RecordOpener - every byte of the first records flipped in turn gives no content, then or later', (t) => {
  for (let victim = 0; victim < 3; victim++) {
    const length = 16 + 40;
    for (let index = 0; index < length; index++) {
      const sealer = newSealer();
      const opener = newOpener();
      const records = [0, 1, 2, 3].map(() => sealOne(sealer, Buffer.alloc(40, 0xaa)));
      records.slice(0, victim).forEach((record) => opener.open(record));
      const record = records[victim] ?? Buffer.alloc(0);
      t.is(record.length, length);
      t.throws(() => opener.open(flipByte(record, index, 1 << (index % 8))), tampered);
      for (const later of [...records.slice(victim + 1), record])
        t.throws(() => opener.open(later), tampered);
    }
  }
});

test('RecordOpener - a record lost, repeated, moved, cut, drawn out or from elsewhere is refused', (t) => {
  const sealer = newSealer();
  const [a, b, c] = [0, 1, 2].map((n) => sealOne(sealer, Buffer.from(`record ${n}`))) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  const other = sealOne(
    new RecordSealer(createSecretKey(randomBytes(32))),
    Buffer.from('record 1'),
  );
  const after = (...records: Buffer[]) => {
    const opener = newOpener();
    for (const record of records) opener.open(record);
  };
  t.notThrows(() => after(a, b, c));
  t.throws(() => after(b), tampered);
  t.throws(() => after(a, c), tampered);
  t.throws(() => after(a, a), tampered);
  t.throws(() => after(a, b, a), tampered);
  t.throws(() => after(a, other), tampered);
  t.throws(() => after(a, b.subarray(0, -1)), tampered);
  t.throws(() => after(a, Buffer.concat([b, Buffer.alloc(1)])), tampered);
  t.throws(() => after(a, Buffer.concat([b, c])), tampered);
});

test('RecordSealer - a key refuses at its limit and never again agrees', (t) => {
  const sealer = newSealer(9); // three records of 3 blocks
  for (let n = 0; n < 3; n++) sealer.seal([Buffer.alloc(16)]);
  t.is(sealer.remainingBytes, 0);
  t.throws(() => sealer.seal([Buffer.alloc(16)]), exhausted);
  t.throws(() => sealer.seal([]), exhausted);
  const tooLargeFor = newSealer(9);
  t.throws(() => tooLargeFor.seal([Buffer.alloc(16 * 8)]), exhausted);
  t.throws(() => tooLargeFor.seal([]), exhausted);
});

test('RecordOpener - refuses past the same limit', (t) => {
  const sealer = newSealer();
  const opener = newOpener(9);
  for (let n = 0; n < 3; n++) opener.open(sealOne(sealer, Buffer.alloc(16)));
  const fourth = sealOne(sealer, Buffer.alloc(16));
  t.throws(() => opener.open(fourth), exhausted);
});

test('RecordSealer - the limit cannot be raised and lies far below the counter and what AES-GCM bears', (t) => {
  t.is(newSealer(Number.MAX_SAFE_INTEGER).remainingBytes, maxBlocksPerKey * 16);
  t.true(maxBlocksPerKey / 2 < 2 ** 53); // records per key: counted exactly
  t.true(2 * Math.log2(maxBlocksPerKey) - 129 <= -60);
});
