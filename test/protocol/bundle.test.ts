import test from 'ava';
import * as v from 'valibot';
import { rootIdOf, verifyBundle } from '../../protocol/bundle.ts';
import { rawPublicKey, signStatement } from '../../protocol/statement.ts';
import {
  flipByte,
  newSigningKey,
  rawBase64,
  TestAuthority,
  testNowMs,
} from '../support/authority.ts';

const authority = new TestAuthority();
const pinned = { rootId: rootIdOf(rawPublicKey(authority.root.privateKey)), minVersion: 5 };
const verify = (statement: string, nowMs = testNowMs) => verifyBundle(statement, pinned, nowMs);
const refused = { code: 'ERR_STATEMENT_REFUSED' };

test('verifyBundle - gives the keys that the pinned root signed', (t) => {
  const statement = authority.signBundle({ version: 5 });
  const bundle = verify(statement);
  t.is(bundle.version, 5);
  t.is(bundle.rootId, pinned.rootId);
  t.is(bundle.statement, statement);
  t.deepEqual(
    bundle.grantKeys.map((key) => rawPublicKey(key.publicKey).toString('base64url')),
    [rawBase64(authority.grantKey)],
  );
});

test('verifyBundle - a lower version than the lowest accepted is refused', (t) => {
  t.throws(() => verify(authority.signBundle({ version: 4 })), refused);
  t.notThrows(() => verify(authority.signBundle({ version: 6 })));
});

test('verifyBundle - a bundle past its end is refused', (t) => {
  const statement = authority.signBundle({ version: 5, notAfterMs: testNowMs });
  t.notThrows(() => verify(statement, testNowMs - 1));
  t.throws(() => verify(statement, testNowMs), refused);
  t.throws(() => verify(statement, NaN), refused);
});

test('verifyBundle - another root, honest or under a borrowed name, is refused', (t) => {
  const other = newSigningKey();
  t.throws(
    () => verify(authority.signBundle({ version: 5, root: rawBase64(other) }, other)),
    refused,
  );
  t.throws(() => verify(authority.signBundle({ version: 5 }, other)), refused);
  t.throws(
    () =>
      verify(
        authority.signBundle({ version: 5 }, other).replace(other.keyId, authority.root.keyId),
      ),
    refused,
  );
  // The root signs that somebody else is the root; such a text is no bundle of this root.
  t.throws(() => verify(authority.signBundle({ version: 5, root: rawBase64(other) })), refused);
});

test('verifyBundle - another kind of statement by the root is refused', (t) => {
  const payload = { root: rawBase64(authority.root) };
  const statement = signStatement('roster', v.looseObject({}), payload, authority.root);
  t.throws(() => verify(statement), refused);
  t.throws(() => verify(statement.replace('roster', 'bundle')), refused);
});

test('verifyBundle - every byte flipped in turn is refused', (t) => {
  const statement = Buffer.from(authority.signBundle({ version: 5 }));
  for (let index = 0; index < statement.length; index++) {
    const mask = 1 << (index % 8);
    t.throws(() => verify(flipByte(statement, index, mask).toString('latin1')), refused);
  }
});

test('verifyBundle - what is no bundle at all is refused', (t) => {
  for (const statement of ['', '...', 'bundle', 'bundle.x.y.z', 'bundle..e30.']) {
    t.throws(() => verify(statement), refused);
  }
  t.throws(() => verify('x'.repeat(1_048_576)), { code: 'ERR_MESSAGE_TOO_LARGE' });
});
