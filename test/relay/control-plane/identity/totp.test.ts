import { Secret, TOTP } from 'otpauth';
import ava, { type ExecutionContext } from 'ava';
import {
  beginTotp,
  confirmTotp,
  hasTotp,
  removeTotp,
  totpStep,
  useTotp,
} from '../../../../relay/control-plane/identity/index.ts';
import { addUser, openTestStore, startMs, onEveryStore } from '../fixture.ts';

const test = onEveryStore(ava);

const stepMs = 30_000;
const refused = { code: 'ERR_IDENTITY_SIGN_IN_REFUSED' };

async function setUp(t: ExecutionContext) {
  const store = await openTestStore(t);
  const user = await addUser(store, 'anna');
  const uri = await store.write((tx) => beginTotp(tx, user, startMs));
  const secret = Secret.fromBase32(new URL(uri).searchParams.get('secret') ?? '');
  const code = (atMs: number) => new TOTP({ secret }).generate({ timestamp: atMs });
  const use = (text: string, atMs: number) => store.write((tx) => useTotp(tx, user.id, text, atMs));
  const confirm = (text: string, atMs: number) =>
    store.write((tx) => confirmTotp(tx, user.id, text, atMs));
  return { store, user, uri, code, use, confirm };
}

test('totpStep - agrees with the vectors of RFC 6238, of which these are the last six digits', (t) => {
  const secret = Secret.fromUTF8('12345678901234567890').base32;
  for (const [seconds, eightDigits] of [
    [59, '94287082'],
    [1_111_111_109, '07081804'],
    [1_111_111_111, '14050471'],
    [1_234_567_890, '89005924'],
    [2_000_000_000, '69279037'],
    [20_000_000_000, '65353130'],
  ] as const) {
    const step = Math.floor(seconds / 30);
    t.is(totpStep(secret, eightDigits.slice(2), seconds * 1000), step);
  }
});

test('totpStep - takes the step before and after, no other, and nothing but six digits', (t) => {
  const secret = new Secret({ size: 20 });
  const code = new TOTP({ secret }).generate({ timestamp: startMs });
  const step = Math.floor(startMs / stepMs);
  for (const offset of [-1, 0, 1]) {
    t.is(totpStep(secret.base32, code, startMs + offset * stepMs), step);
  }
  for (const offset of [-2, 2])
    t.is(totpStep(secret.base32, code, startMs + offset * stepMs), undefined);
  for (const text of ['', '12345', '1234567', ' 12345', '１２３４５６', 'abcdef', '-12345']) {
    t.is(totpStep(secret.base32, text, startMs), undefined);
  }
});

test('beginTotp - asks for nothing until a code has shown that the secret is kept', async (t) => {
  const { store, user, uri, code, use, confirm } = await setUp(t);
  t.regex(uri, /^otpauth:\/\/totp\/ztna:anna\?/);
  t.false(await hasTotp(store.db, user.id));
  await t.throwsAsync(use(code(startMs), startMs), refused);
  await t.throwsAsync(confirm('000000', startMs + 100 * stepMs), refused);
  await confirm(code(startMs), startMs);
  t.true(await hasTotp(store.db, user.id));
  await t.throwsAsync(
    store.write((tx) => beginTotp(tx, user, startMs)),
    { code: 'ERR_CONFIG_EXISTS' },
  );
  await store.write((tx) => removeTotp(tx, user.id));
  t.false(await hasTotp(store.db, user.id));
});

test('useTotp - takes each step once, and none before it', async (t) => {
  const { code, use, confirm } = await setUp(t);
  await confirm(code(startMs), startMs);
  await t.throwsAsync(use(code(startMs), startMs), refused);
  const laterMs = startMs + 2 * stepMs;
  await use(code(laterMs), laterMs);
  await t.throwsAsync(use(code(laterMs), laterMs), refused);
  await t.throwsAsync(use(code(laterMs - stepMs), laterMs), refused);
  await use(code(laterMs + stepMs), laterMs);
});

test('useTotp - lets one of many who type the same code win', async (t) => {
  const { code, use, confirm } = await setUp(t);
  await confirm(code(startMs), startMs);
  const laterMs = startMs + 2 * stepMs;
  const results = await Promise.allSettled(
    Array.from({ length: 20 }, () => use(code(laterMs), laterMs)),
  );
  t.is(results.filter((result) => result.status === 'fulfilled').length, 1);
});
