import { ZtnaError } from '../../../protocol/index.ts';

/** Characters of the shortest password. */
export const minPasswordLength = 12;
/** Characters of the longest: scrypt takes any length, a reader of input does not. */
export const maxPasswordLength = 1024;

/** What people choose to fill twelve characters; compared without digits and signs at the end. */
const common = new Set(
  `password passwordpassword qwertyuiop qwertyuiopas qwertyuiopasdf asdfghjkl asdfghjklqwerty letmein
   letmeinletmein iloveyou iloveyouiloveyou welcome welcomewelcome administrator adminadmin adminadminadmin
   changeme changemechangeme correcthorsebatterystaple trustno passw0rd p@ssword p@ssw0rd companyname
   sunshine princess football superman batman monkeymonkey dragondragon mastermaster abcdefghijkl
   abcdefghijklmnop zxcvbnm zxcvbnmasdfg qazwsxedcrfv defaultpassword mypassword newpassword temppassword
   testtesttest secretsecret ztnaztnaztna`.split(/\s+/),
);

/** Checks a password that someone chooses. Throws ERR_IDENTITY_PASSWORD_WEAK with the reason. */
export function checkNewPassword(password: string, userName: string): void {
  const text = password.normalize('NFKC');
  const length = Array.from(text).length; // code points, as people count them
  if (length < minPasswordLength) {
    throw weak('password_short', `use at least ${String(minPasswordLength)} characters`);
  }
  if (length > maxPasswordLength) throw weak('password_long', 'use a shorter one');
  const folded = text.toLowerCase();
  if (isOftenChosen(folded))
    throw weak('password_common', 'use a few words that do not belong together');
  const names = [userName, userName.split('@')[0] ?? ''].filter((name) => name.length >= 3);
  if (names.some((name) => stripName(folded, name).length < 6)) {
    throw weak('password_is_name', 'do not build it from your user name');
  }
}

function isOftenChosen(folded: string): boolean {
  const bare = folded.replace(/[^\p{L}]+$/u, '');
  const hasFewCharacters = new Set(folded).size < 5;
  return hasFewCharacters || common.has(folded) || common.has(bare) || isSequence(folded);
}

/** `123456789012`, `abcdefghijkl` and the same downwards. */
function isSequence(text: string): boolean {
  const steps = new Set<number>();
  for (let i = 1; i < text.length; i++) {
    const step = text.charCodeAt(i) - text.charCodeAt(i - 1);
    steps.add(step === -9 ? 1 : step === 9 ? -1 : step); // …90…
  }
  return steps.size === 1;
}

function stripName(folded: string, name: string): string {
  return folded.replaceAll(name.toLowerCase(), '');
}

function weak(reason: string, advice: string): ZtnaError {
  return new ZtnaError('ERR_IDENTITY_PASSWORD_WEAK', { reason, hint: advice });
}
