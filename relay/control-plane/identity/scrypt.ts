import { randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { ZtnaError } from '../../../protocol/index.ts';
import { Turnstile, type Place } from './turnstile.ts';

/** 128 MiB and about a third of a second for each guess. */
const cost = { N: 2 ** 17, r: 8, p: 1, maxmem: 256 * 1024 * 1024 };
const prefix = 'scrypt$17$8$1';
const saltBytes = 16;
const hashBytes = 32;

/**
 * Each hash takes 128 MiB and a thread of libuv's pool, which has four; one processor stays for everything else. Those that wait
 * take a third of a second each; more would time out anyway. Nobody types more than a few passwords at once.
 */
const turnstile = new Turnstile({
  maxAtOnce: Math.max(1, Math.min(2, availableParallelism() - 1)),
  maxWaiting: 32,
  maxWaitingKnown: 32,
  maxWaitingOfOne: 4,
});

/** A new salted hash of `password`, as text to store. Throws ERR_LIMIT_RATE when too many are waiting. */
export async function hashPassword(password: string, place?: Place): Promise<string> {
  const salt = randomBytes(saltBytes);
  const hash = await derive(password, salt, place);
  return [prefix, salt.toString('base64url'), hash.toString('base64url')].join('$');
}

/**
 * Compares in constant time. Without a stored hash it does the same work and answers false, so that an
 * unknown user takes as long as a wrong password. Throws ERR_LIMIT_RATE when too many are waiting.
 */
export async function verifyPassword(
  password: string,
  stored: string | null,
  place?: Place,
): Promise<boolean> {
  const parts = stored?.startsWith(prefix + '$') ? stored.split('$') : [];
  const salt = Buffer.from(parts[4] ?? '', 'base64url');
  const expected = Buffer.from(parts[5] ?? '', 'base64url');
  const isReal = salt.length === saltBytes && expected.length === hashBytes;
  const actual = await derive(password, isReal ? salt : Buffer.alloc(saltBytes), place);
  return timingSafeEqual(actual, isReal ? expected : Buffer.alloc(hashBytes)) && isReal;
}

/** People type the same letter in several encodings. */
function derive(password: string, salt: Buffer, place?: Place): Promise<Buffer> {
  const text = password.normalize('NFKC');
  return turnstile.run(
    () =>
      new Promise((resolve, reject) => {
        scrypt(text, salt, hashBytes, cost, (error, hash) => {
          if (error) reject(new ZtnaError('ERR_INTERNAL', { cause: error }));
          else resolve(hash);
        });
      }),
    place,
  );
}
