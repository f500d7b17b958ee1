import test from 'ava';
import { checkNewPassword } from '../../../../relay/control-plane/identity/index.ts';

const weak = (reason: string) => ({ code: 'ERR_IDENTITY_PASSWORD_WEAK', reason });

test('checkNewPassword - takes long enough texts of any kind', (t) => {
  for (const password of [
    'blue kettle quiet moon',
    'xK9#mQ2$vL5p',
    'пароль длинный да',
    '山川草木日月星辰風花雪水',
  ]) {
    t.notThrows(() => checkNewPassword(password, 'anna'), password);
  }
});

test('checkNewPassword - refuses short, endless, common and monotonous ones', (t) => {
  const cases: [string, string][] = [
    ['tiny!', 'password_short'],
    ['elevenchars', 'password_short'],
    ['x'.repeat(1_025), 'password_long'],
    ['passwordpassword', 'password_common'],
    ['Administrator2026!', 'password_common'],
    ['qwertyuiop1234', 'password_common'],
    ['aaaaaaaaaaaaaa', 'password_common'],
    ['abababababab', 'password_common'],
    ['123456789012', 'password_common'],
    ['abcdefghijklmnopq', 'password_common'],
    ['987654321098', 'password_common'],
  ];
  for (const [password, reason] of cases) {
    const error = t.throws(() => checkNewPassword(password, 'anna'));
    t.like(error, weak(reason), password);
    t.false(JSON.stringify(error).includes(password));
  }
});

test('checkNewPassword - refuses the user name with trimmings', (t) => {
  for (const [password, name] of [
    ['anna.schmidt1', 'anna.schmidt'],
    ['Anna.SchmidtAnna.Schmidt', 'anna.schmidt'],
    ['jonathanjonathan', 'jonathan@example.com'],
    ['jonathan@example.com', 'jonathan@example.com'],
  ] as const) {
    t.like(
      t.throws(() => checkNewPassword(password, name)),
      weak('password_is_name'),
      password,
    );
  }
  t.notThrows(() => checkNewPassword('anna likes brown rivers', 'anna'));
});
