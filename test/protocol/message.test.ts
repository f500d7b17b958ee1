import test from 'ava';
import fc from 'fast-check';
import * as v from 'valibot';
import { idSchema, newId } from '../../protocol/id.ts';
import { decodeMessage, encodeMessage, maxMessageBytes } from '../../protocol/message.ts';
import { bytes, natural, reason, text } from '../../protocol/schema.ts';
import { isErrorCode, ZtnaError } from '../../protocol/errors.ts';

const schema = v.variant('type', [
  v.strictObject({ type: v.literal('first'), id: natural, name: text(40) }),
  v.strictObject({
    type: v.literal('second'),
    app: idSchema('app'),
    list: v.pipe(v.array(v.strictObject({ n: v.nullable(natural) })), v.maxLength(3)),
  }),
]);
const malformed = { code: 'ERR_MESSAGE_MALFORMED' };

test('decodeMessage - reads back whatever encodeMessage wrote, as text and as bytes', (t) => {
  const message = fc.oneof(
    fc.record({
      type: fc.constant('first' as const),
      id: fc.maxSafeNat(),
      name: fc.string({ unit: 'grapheme', maxLength: 10 }).filter((s) => v.is(text(40), s)),
    }),
    fc.record({
      type: fc.constant('second' as const),
      app: fc.constant(newId('app')),
      list: fc.array(fc.record({ n: fc.option(fc.maxSafeNat()) }), { maxLength: 3 }),
    }),
  );
  fc.assert(
    fc.property(message, (value) => {
      const encoded = encodeMessage(schema, value);
      t.deepEqual(decodeMessage(schema, encoded) as unknown, { ...value });
      t.deepEqual(decodeMessage(schema, Buffer.from(encoded)) as unknown, { ...value });
      const reversed = Object.fromEntries(Object.entries(value).reverse());
      t.is(encodeMessage(schema, reversed as typeof value), encoded); // one form, however it was put together
      t.throws(() => decodeMessage(schema, JSON.stringify(reversed)), malformed);
    }),
  );
});

test('decodeMessage - any text is either refused with its code or the one form of its message', (t) => {
  const good = Buffer.from('{"type":"first","id":12,"name":"a b"}');
  const edit = fc.record({
    at: fc.nat({ max: good.length }),
    drop: fc.nat({ max: 3 }),
    put: fc.string({ maxLength: 3 }),
  });
  const edited = fc
    .array(edit, { maxLength: 3 })
    .map((edits) =>
      edits.reduce(
        (s, { at, drop, put }) => s.slice(0, at) + put + s.slice(at + drop),
        good.toString(),
      ),
    );
  const strange = fc.oneof(edited, fc.json(), fc.string());
  fc.assert(
    fc.property(strange, (candidate) => {
      let message;
      try {
        message = decodeMessage(schema, candidate);
      } catch (error) {
        t.true(error instanceof ZtnaError && error.code === 'ERR_MESSAGE_MALFORMED');
        return;
      }
      t.is(encodeMessage(schema, message), candidate);
    }),
    { numRuns: 2_000 },
  );
});

test('decodeMessage - members repeated, unknown, missing, moved or respelt are refused', (t) => {
  t.notThrows(() => decodeMessage(schema, '{"type":"first","id":1,"name":"a"}'));
  for (const candidate of [
    '{"type":"first","id":1,"id":1,"name":"a"}',
    '{"type":"first","type":"first","id":1,"name":"a"}',
    '{"type":"first","id":1,"name":"a","more":1}',
    '{"type":"first","id":1,"name":"a","__proto__":1}',
    '{"type":"first","id":1,"name":"a","__proto__":{"isAdmin":true}}',
    '{"type":"first","id":1,"name":"a","toString":1}',
    '{"type":"first","id":1,"name":"a","constructor":{"prototype":{"isAdmin":true}}}',
    '{"__proto__":{"type":"first"},"id":1,"name":"a"}',
    '{"type":"first","id":1}',
    '{"type":"first","name":"a","id":1}',
    '{"id":1,"type":"first","name":"a"}',
    '{"type":"third","id":1,"name":"a"}',
    '{"type":"second","id":1,"name":"a"}',
    '{"type":"first","id":1,"name":"a"} ',
    ' {"type":"first","id":1,"name":"a"}',
    '{"type":"first","id":1,"name":"\\u0061"}',
    '{"type":"first","id":1,"name":"\\/"}',
    '{"type":"first","id":1e0,"name":"a"}',
    '{"type":"first","id":1.0,"name":"a"}',
    '{"type":"first","id":-0,"name":"a"}',
    '{"type":"first","id":9007199254740993,"name":"a"}',
    '{"type":"first","id":1e999,"name":"a"}',
    '{"type":"first","id":true,"name":"a"}',
    '{"type":"first","id":1,"name":"a\\nb"}',
    '{"type":"first","id":1,"name":"a\\u0000"}',
    "{'type':'first','id':1,'name':'a'}",
    '[]',
    '""',
    '0',
    'null',
    '',
  ]) {
    t.throws(() => decodeMessage(schema, candidate), malformed, candidate);
  }
  t.is(({} as Record<string, unknown>)['isAdmin'], undefined);
});

test('decodeMessage - bytes that are no UTF-8, or carry a byte order mark, are refused', (t) => {
  const around = (...middle: number[]) =>
    Buffer.concat([
      Buffer.from('{"type":"first","id":1,"name":"'),
      Buffer.from(middle),
      Buffer.from('"}'),
    ]);
  t.notThrows(() => decodeMessage(schema, around(0xc3, 0xa9)));
  t.notThrows(() => decodeMessage(schema, around(0xef, 0xbf, 0xbd)));
  t.throws(() => decodeMessage(schema, around(0xff)), malformed);
  t.throws(() => decodeMessage(schema, around(0xc3)), malformed);
  t.throws(() => decodeMessage(schema, around(0xc0, 0xaf)), malformed); // overlong
  t.throws(() => decodeMessage(schema, around(0xed, 0xa0, 0x80)), malformed); // half a surrogate pair
  const marked = Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), around(0x61)]);
  t.throws(() => decodeMessage(schema, marked), malformed);
});

test('decodeMessage - half a surrogate pair is refused in text', (t) => {
  t.throws(() => decodeMessage(schema, '{"type":"first","id":1,"name":"\\ud800"}'), malformed);
});

test('decodeMessage - the cap is in bytes, held before parsing, and holds for text and bytes alike', (t) => {
  const tooLarge = { code: 'ERR_MESSAGE_TOO_LARGE' };
  const wide = v.strictObject({ a: v.string() });
  const exact = (bytesLength: number) => `{"a":"${'x'.repeat(bytesLength - 8)}"}`;
  t.is(decodeMessage(wide, exact(maxMessageBytes)).a.length, maxMessageBytes - 8);
  t.throws(() => decodeMessage(wide, exact(maxMessageBytes + 1)), tooLarge);
  t.throws(() => decodeMessage(wide, Buffer.from(exact(maxMessageBytes + 1))), tooLarge);
  t.throws(() => decodeMessage(wide, `{"a":"${'é'.repeat(40_000)}"}`), tooLarge);
  t.throws(() => decodeMessage(wide, 'x'.repeat(1_048_576)), tooLarge); // not malformed: it was never parsed
});

test('decodeMessage - deep nesting is refused without harm', (t) => {
  for (const depth of [1_000, 32_000]) {
    t.throws(() => decodeMessage(schema, '['.repeat(depth) + ']'.repeat(depth)), malformed);
    t.throws(
      () => decodeMessage(schema, '{"a":'.repeat(depth / 5) + '1' + '}'.repeat(depth / 5)),
      malformed,
    );
  }
});

test('encodeMessage - a value that does not fit is our own mistake', (t) => {
  const wrong = { type: 'first' as const, id: -1, name: 'a' };
  t.throws(() => encodeMessage(schema, wrong), { code: 'ERR_INTERNAL' });
});

test('bytes - takes unpadded base64url of exactly that many bytes', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat({ max: 40 }), (raw, count) => {
      t.is(v.is(bytes(count), Buffer.from(raw).toString('base64url')), raw.length === count);
    }),
  );
  for (const candidate of ['AA==', 'AB', 'A', 'AA ', '+A', 'A\u0000', 'AAA']) {
    t.false(v.is(bytes(1), candidate), candidate);
  }
  t.true(v.is(bytes(1), 'AA'));
});

test('reason - takes snake case alone', (t) => {
  t.true(v.is(reason, 'lease_expired2'));
  for (const candidate of ['', 'Lease', '_a', '2a', 'a-b', 'a b', 'a\n', 'a'.repeat(65)]) {
    t.false(v.is(reason, candidate), candidate);
  }
});

test('isErrorCode - inherited names are no codes', (t) => {
  for (const name of ['__proto__', 'constructor', 'toString', '']) t.false(isErrorCode(name));
});
