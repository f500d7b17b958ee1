import { generateKeyPairSync, sign } from 'node:crypto';
import test from 'ava';
import * as v from 'valibot';
import { natural } from '../../protocol/schema.ts';
import {
  keyIdOf,
  rawPublicKey,
  signingKey,
  signStatement,
  verifyingKey,
  verifyStatement,
  type SigningKey,
  type StatementKind,
} from '../../protocol/statement.ts';

const schema = v.strictObject({ a: natural, b: v.string() });
const key = signingKey(generateKeyPairSync('ed25519').privateKey);
const other = signingKey(generateKeyPairSync('ed25519').privateKey);
const verifying = (signer: SigningKey) => verifyingKey(rawPublicKey(signer.privateKey));
const verify = (statement: string, kind: StatementKind = 'grant') =>
  verifyStatement(kind, schema, statement, [verifying(key)]);
const refused = { code: 'ERR_STATEMENT_REFUSED' };

/** Signs any payload at all, as a rightful signer never would. */
function signRaw(payload: string | Buffer, kind = 'grant', signer = key): string {
  const bytes = Buffer.from(payload);
  const signed = Buffer.concat([
    Buffer.from(`ztna-statement-v1\0${kind}\0${signer.keyId}\0`),
    bytes,
  ]);
  const signature = sign(null, signed, signer.privateKey).toString('base64url');
  return `${kind}.${signer.keyId}.${bytes.toString('base64url')}.${signature}`;
}

const good = signStatement('grant', schema, { a: 1, b: 'two' }, key);

test('verifyStatement - gives what was signed, and the layout is the one stated', (t) => {
  t.deepEqual(verify(good), { a: 1, b: 'two' });
  t.is(signRaw('{"a":1,"b":"two"}'), good);
  t.is(key.keyId, keyIdOf(rawPublicKey(key.privateKey)));
  t.regex(key.keyId, /^[0-9a-f]{16}$/);
});

test('verifyStatement - every bit of a statement flipped in turn is refused before it is parsed', (t) => {
  const bytes = Buffer.from(good, 'latin1');
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const copy = Buffer.from(bytes);
    copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    t.throws(() => verify(copy.toString('latin1')), refused);
  }
});

test('verifyStatement - every shortening of a statement is refused', (t) => {
  for (let length = 0; length < good.length; length++) {
    t.throws(() => verify(good.slice(0, length)), refused);
    t.throws(() => verify(good.slice(good.length - length)), refused);
  }
});

test('verifyStatement - a statement serves its own kind alone, whoever renames it', (t) => {
  for (const kind of ['roster', 'lease', 'log', 'time', 'bundle'] as const) {
    t.throws(() => verify(good, kind), refused);
    t.throws(() => verify(good.replace(/^grant/, kind), kind), refused);
    t.throws(() => verify(signRaw('{"a":1,"b":"two"}', kind)), refused);
    t.notThrows(() => verify(signRaw('{"a":1,"b":"two"}', kind), kind));
  }
});

test('verifyStatement - a statement by another key is refused, also under the name of the right one', (t) => {
  const foreign = signStatement('grant', schema, { a: 1, b: 'two' }, other);
  t.throws(() => verify(foreign), refused);
  t.throws(() => verify(foreign.replace(other.keyId, key.keyId)), refused);
  t.throws(() => verifyStatement('grant', schema, good, []), refused);
  t.throws(() => verifyStatement('grant', schema, good, [verifying(other)]), refused);
  t.notThrows(() => verifyStatement('grant', schema, good, [verifying(other), verifying(key)]));
});

test('verifyStatement - every other spelling of the same statement is refused', (t) => {
  const [kind = '', keyId = '', payload = '', signature = ''] = good.split('.');
  const join = (...parts: string[]) => parts.join('.');
  const respelt = [
    `${good}=`,
    `${good}\n`,
    ` ${good}`,
    `${good}.`,
    `.${good}`,
    join(kind, keyId, `${payload}=`, signature),
    join(kind, keyId, `${payload}==`, signature),
    join(kind, keyId, `${payload.slice(0, 4)} ${payload.slice(4)}`, signature),
    join(kind, keyId, `${payload.slice(0, 4)}\n${payload.slice(4)}`, signature),
    join(kind, keyId, payload, `${signature}==`),
    join(kind, keyId, payload, `!${signature}`),
    join(kind, keyId.toUpperCase(), payload, signature),
    join(kind.toUpperCase(), keyId, payload, signature),
    join(kind, keyId, payload, signature, signature),
    join(kind, keyId, payload),
  ].filter((text) => text !== good);
  for (const text of respelt) t.throws(() => verify(text), refused);

  // The last digit of 64 bytes in base64url has four bits that decode to nothing.
  const last = signature.at(-1) ?? '';
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  const at = alphabet.indexOf(last);
  for (let low = 1; low < 16; low++) {
    const twin = signature.slice(0, -1) + (alphabet[at + low] ?? '');
    t.deepEqual(Buffer.from(twin, 'base64url'), Buffer.from(signature, 'base64url'));
    t.throws(() => verify(join(kind, keyId, payload, twin)), refused);
  }
  // Both alphabets decode alike, but only one of them is ours.
  const dashed = signRaw(`{"a":1,"b":"${'\u00fb\u00ff'.repeat(9)}"}`);
  const plain = dashed.replaceAll('-', '+').replaceAll('_', '/');
  t.notThrows(() => verify(dashed));
  t.not(plain, dashed);
  t.throws(() => verify(plain), refused);
});

test('verifyStatement - a signature with S + L is refused', (t) => {
  const order = 2n ** 252n + 27742317777372353535851937790883648493n;
  const parts = good.split('.');
  const signature = Buffer.from(parts[3] ?? '', 'base64url');
  const s = BigInt('0x' + Buffer.from(signature.subarray(32)).reverse().toString('hex'));
  const raised = Buffer.from((s + order).toString(16).padStart(64, '0'), 'hex').reverse();
  parts[3] = Buffer.concat([signature.subarray(0, 32), raised]).toString('base64url');
  t.throws(() => verify(parts.join('.')), refused);
});

test('verifyStatement - JSON with members repeated, unknown, missing, moved or respelt is refused, though rightly signed', (t) => {
  const malformed = { code: 'ERR_MESSAGE_MALFORMED' };
  const payloads = [
    '{"a":1,"a":1,"b":"two"}',
    '{"a":2,"a":1,"b":"two"}',
    '{"a":1,"b":"two","c":3}',
    '{"a":1,"b":"two","__proto__":{"c":3}}',
    '{"a":1,"b":"two","constructor":1}',
    '{"__proto__":{"a":1,"b":"two"}}',
    '{"a":1}',
    '{}',
    '{"b":"two","a":1}',
    '{"a": 1,"b":"two"}',
    '{"a":1.0,"b":"two"}',
    '{"a":1e0,"b":"two"}',
    '{"a":"1","b":"two"}',
    '{"a":-1,"b":"two"}',
    '{"a":-0,"b":"two"}',
    '{"a":0.5,"b":"two"}',
    '{"a":9007199254740992,"b":"two"}',
    '{"a":null,"b":"two"}',
    '{"a":1,"b":"\\u0074wo"}',
    '{"a":1,"b":["two"]}',
    '[1,"two"]',
    'null',
    'x',
    '{"a":1,"b":"two"}\n',
    '\ufeff{"a":1,"b":"two"}',
  ];
  for (const payload of payloads) {
    t.throws(() => verify(signRaw(payload)), malformed, payload);
  }
  t.throws(() => verify(signRaw(Buffer.from('{"a":1,"b":"\xff"}', 'latin1'))), malformed);
  t.throws(() => verify(signRaw('')), refused);
  t.is(({} as Record<string, unknown>)['c'], undefined);
});

test('verifyStatement - deep nesting and great length are refused without harm', (t) => {
  const deep = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
  t.throws(() => verify(signRaw(deep(1_000))), { code: 'ERR_MESSAGE_MALFORMED' });
  t.throws(() => verify(signRaw(deep(30_000))), { code: 'ERR_MESSAGE_MALFORMED' });
  t.throws(() => verify(signRaw(`{"a":${deep(1_000)},"b":"two"}`)), {
    code: 'ERR_MESSAGE_MALFORMED',
  });
  const tooLarge = { code: 'ERR_MESSAGE_TOO_LARGE' };
  t.throws(() => verify(signRaw(`{"a":1,"b":"${'x'.repeat(1_048_576)}"}`)), tooLarge);
  t.throws(() => verify('x'.repeat(1_048_576)), tooLarge);
  t.throws(() => verify('.'.repeat(1_048_576)), tooLarge);
});

test('verifyStatement - takes a payload of exactly the cap and refuses one byte more', (t) => {
  const at = (bytes: number) => signRaw(`{"a":1,"b":"${'x'.repeat(bytes - 14)}"}`);
  const cap = (statement: string) =>
    verifyStatement('grant', schema, statement, [verifying(key)], 1_000);
  t.is(cap(at(1_000)).b.length, 986);
  t.throws(() => cap(at(1_001)), { code: 'ERR_MESSAGE_TOO_LARGE' });
});

test('signStatement - a value that does not fit is our own mistake', (t) => {
  t.throws(() => signStatement('grant', schema, { a: -1, b: 'two' }, key), {
    code: 'ERR_INTERNAL',
  });
});
