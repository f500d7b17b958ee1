import test from 'ava';
import fc from 'fast-check';
import { errorRows } from '../../protocol/errors.ts';
import {
  decodeClose,
  decodeCount,
  decodeReset,
  encodeClose,
  encodeCount,
  encodeFrame,
  encodeReset,
  encodeResume,
  FrameType,
  maxPayloadBytes,
  maxPlaintextBytes,
  readFrames,
  type ResetCode,
} from '../../protocol/frame.ts';

const malformed = { code: 'ERR_FRAME_MALFORMED' };
const largest = 2 ** 53 - 1;

/** One good frame of each type: stream, number, payload. */
const examples: readonly (readonly [FrameType, number, number, Buffer])[] = [
  [FrameType.Open, 1, 1, Buffer.from('hello')],
  [FrameType.Data, 0xffff_ffff, largest, Buffer.from('x')],
  [FrameType.Fin, 3, 7, Buffer.alloc(0)],
  [FrameType.Reset, 3, 8, encodeReset('refused')],
  [FrameType.Ack, 0, 9, Buffer.alloc(0)],
  [FrameType.Credit, 5, 0, encodeCount(largest)],
  [FrameType.Resume, 0, 0, encodeResume(Buffer.alloc(32, 7))],
  [FrameType.Accept, 0, 0, Buffer.alloc(0)],
  [FrameType.Close, 0, 0, encodeClose({ code: 'ERR_TUNNEL_REVOKED', reason: 'device_revoked' })],
  [FrameType.Probe, 0, 0, Buffer.alloc(8, 1)],
  [FrameType.ProbeReply, 0, 0, Buffer.alloc(8, 1)],
  [FrameType.Resumed, 0, 0, encodeCount(largest)],
  [FrameType.Heard, 0, 0, encodeCount(largest)],
  [FrameType.Part, 3, 9, Buffer.from('x')],
];
const nameOf = (type: number) =>
  Object.entries(FrameType).find(([, value]) => value === type)?.[0] ?? 'unknown';

test('readFrames - reads back every type of frame, many to a record, without copying', (t) => {
  const record = Buffer.concat(examples.map((example) => encodeFrame(...example)));
  const frames = readFrames(record);
  t.deepEqual(
    frames.map(({ type, stream, number, payload }) => [type, stream, number, payload]),
    examples.map((example) => [...example]),
  );
  for (const { payload } of frames) t.is(payload.buffer, record.buffer);
});

test('encodeFrame - lays a frame out as the table says', (t) => {
  const frame = encodeFrame(FrameType.Data, 0x01020304, 0x0a_0000_0b0c, Buffer.from('ab'));
  t.is(frame.toString('hex'), '02000002' + '01020304' + '0000000a00000b0c' + '6162');
});

test('readFrames - refuses a record cut short at any byte', (t) => {
  for (const example of examples) {
    const frame = encodeFrame(...example);
    for (let length = 0; length < frame.length; length++) {
      t.throws(() => readFrames(frame.subarray(0, length)), malformed, nameOf(example[0]));
      const behindAnother = Buffer.concat([
        encodeFrame(FrameType.Fin, 1, 1),
        frame.subarray(0, length),
      ]);
      if (length > 0) t.throws(() => readFrames(behindAnother), malformed, nameOf(example[0]));
    }
  }
});

test('readFrames - refuses a stream id where there must be none, and none where there must be one', (t) => {
  for (const [type, stream, number, payload] of examples) {
    const wrong = encodeFrame(type, stream === 0 ? 1 : 0, number, payload);
    t.throws(() => readFrames(wrong), malformed, nameOf(type));
  }
});

test('readFrames - refuses a number where there must be none, and none where there must be one', (t) => {
  for (const [type, stream, number, payload] of examples) {
    const wrong = encodeFrame(type, stream, number === 0 ? 1 : 0, payload);
    t.throws(() => readFrames(wrong), malformed, nameOf(type));
  }
});

test('readFrames - refuses a payload of a length that its type does not have', (t) => {
  const wrongLengths: readonly [FrameType, readonly number[]][] = [
    [FrameType.Data, [0]],
    [FrameType.Fin, [1]],
    [FrameType.Reset, [0, 1, 3]],
    [FrameType.Ack, [1]],
    [FrameType.Credit, [0, 7, 9]],
    [FrameType.Accept, [1]],
    [FrameType.Close, [0, 130]],
    [FrameType.Probe, [0, 7, 9]],
    [FrameType.ProbeReply, [0, 7, 9]],
  ];
  for (const [type, lengths] of wrongLengths) {
    const [, stream, number] = examples.find(([t]) => t === type) ?? [0, 0, 0];
    for (const length of lengths) {
      const frame = encodeFrame(type, stream, number, Buffer.alloc(length));
      t.throws(() => readFrames(frame), malformed, `${nameOf(type)} of ${length}`);
    }
  }
});

test('readFrames - refuses every unknown type', (t) => {
  const known = new Set<number>(Object.values(FrameType));
  for (let type = 0; type <= 0xff; type++) {
    if (known.has(type)) continue;
    for (const [stream, number] of [
      [0, 0],
      [1, 0],
      [0, 1],
      [1, 1],
    ] as const) {
      t.throws(() => readFrames(encodeFrame(type as FrameType, stream, number)), malformed);
    }
  }
});

test('readFrames - refuses an empty record and one above the limit, and takes one at the limit', (t) => {
  t.throws(() => readFrames(Buffer.alloc(0)), malformed);
  const full = encodeFrame(FrameType.Data, 1, 1, Buffer.alloc(maxPayloadBytes));
  t.is(full.length, maxPlaintextBytes);
  t.is(readFrames(full).length, 1);
  t.throws(() => readFrames(Buffer.concat([full, encodeFrame(FrameType.Fin, 1, 2)])), malformed);
  t.throws(
    () => readFrames(encodeFrame(FrameType.Data, 1, 1, Buffer.alloc(maxPayloadBytes + 1))),
    malformed,
  );
});

test('readFrames - refuses numbers and credit above 2^53 - 1', (t) => {
  const frame = encodeFrame(FrameType.Fin, 1, 1);
  frame.writeBigUInt64BE(2n ** 53n - 1n, 8);
  t.is(readFrames(frame)[0]?.number, largest);
  for (const number of [2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    frame.writeBigUInt64BE(number, 8);
    t.throws(() => readFrames(frame), malformed);
    const credit = Buffer.alloc(8);
    credit.writeBigUInt64BE(number);
    t.throws(() => decodeCount(credit), malformed);
  }
  t.is(decodeCount(encodeCount(largest)), largest);
});

test('readFrames - reads any bytes as frames that encode to the same bytes, or refuses them', (t) => {
  const header = fc
    .tuple(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 20 }), fc.nat(2), fc.nat(2))
    .map(([type, length, stream, number]) => {
      const frame = encodeFrame(type as FrameType, stream, number, Buffer.alloc(length, 'a'));
      return frame;
    });
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 64 }).map((array) => Buffer.from(array)),
    fc.array(header, { minLength: 1, maxLength: 4 }).map((frames) => Buffer.concat(frames)),
  );
  let readCount = 0;
  fc.assert(
    fc.property(bytes, (plaintext) => {
      let frames;
      try {
        frames = readFrames(plaintext);
      } catch (error) {
        t.is((error as { code?: string }).code, 'ERR_FRAME_MALFORMED');
        return;
      }
      readCount++;
      const again = frames.map((f) => encodeFrame(f.type, f.stream, f.number, f.payload));
      t.deepEqual(Buffer.concat(again), plaintext);
    }),
    { numRuns: 3_000 },
  );
  t.true(readCount > 10);
});

test('decodeReset - knows its codes and no others', (t) => {
  const names: ResetCode[] = [
    'refused',
    'unreachable',
    'reset',
    'limit',
    'overrun',
    'internal',
    'closed',
  ];
  names.forEach((name, index) => {
    t.is(encodeReset(name).readUInt16BE(0), index + 1);
    t.is(decodeReset(encodeReset(name)), name);
  });
  for (const code of [0, names.length + 1, 0xffff]) {
    const payload = Buffer.alloc(2);
    payload.writeUInt16BE(code);
    t.throws(() => decodeReset(payload), malformed);
  }
});

test('decodeClose - reads back every code of the table', (t) => {
  for (const { code } of errorRows()) {
    const reason = 'a' + '_0'.repeat(31) + 'z';
    t.deepEqual(decodeClose(encodeClose({ code, reason })), { code, reason });
    t.notThrows(() =>
      readFrames(encodeFrame(FrameType.Close, 0, 0, encodeClose({ code, reason }))),
    );
  }
});

test('decodeClose - takes a code that it does not know for a closed tunnel', (t) => {
  const details = decodeClose(Buffer.from('ERR_FROM_LATER\0some_reason'));
  t.deepEqual(details, { code: 'ERR_TUNNEL_CLOSED', reason: 'some_reason' });
});

test('decodeClose - refuses anything but a code, NUL and a snake_case reason', (t) => {
  const wrong = [
    'ERR_INTERNAL',
    'ERR_INTERNAL\0',
    '\0reason',
    'ERR_INTERNAL\0Reason',
    'ERR_INTERNAL\0two words',
    'ERR_INTERNAL\0reason\n',
    'ERR_INTERNAL\0reason\0',
    'err_internal\0reason',
    'toString\0reason',
    `ERR_INTERNAL\0${'r'.repeat(65)}`,
    'ERR_INTERNAL\0r\u00e9ason',
  ];
  for (const text of wrong)
    t.throws(() => decodeClose(Buffer.from(text, 'latin1')), malformed, text);
});

test('encodeClose - refuses a reason that is not snake_case', (t) => {
  const details = { code: 'ERR_INTERNAL', reason: 'No Such' } as const;
  t.throws(() => encodeClose(details), { code: 'ERR_INTERNAL' });
});
