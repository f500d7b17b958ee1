import test from 'ava';
import { hashPassword, verifyPassword } from '../../../../relay/control-plane/identity/index.ts';

const password = 'correct horse battery staple 7';

test.serial(
  'verifyPassword - knows the password it was made from, in any Unicode form',
  async (t) => {
    const accented = 'caf\u00e9 au lait bien chaud';
    const stored = await hashPassword(accented);
    t.regex(stored, /^scrypt\$17\$8\$1\$[\w-]{22}\$[\w-]{43}$/);
    t.false(stored.includes('lait'));
    t.true(await verifyPassword('cafe\u0301 au lait bien chaud', stored));
    t.false(await verifyPassword('cafe au lait bien chaud', stored));
  },
);

test.serial('hashPassword - salts each hash', async (t) => {
  const [one, other] = await Promise.all([hashPassword(password), hashPassword(password)]);
  t.not(one, other);
});

test.serial('verifyPassword - refuses everything when nothing usable is stored', async (t) => {
  const zeros = Buffer.alloc(32).toString('base64url');
  for (const stored of [null, `scrypt$17$8$1$$${zeros}`, 'scrypt$1$8$1$AAAA$AAAA']) {
    t.false(await verifyPassword('', stored));
  }
});
