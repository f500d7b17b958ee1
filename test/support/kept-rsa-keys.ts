/**
 * A stand-in for tests whose subject is not how keys are made: loaded into a process, it answers from a ring of kept
 * RSA keys where a new one is asked for, since making one takes as long as many a test. Keys drawn one after another
 * differ, up to the length of the ring. The files of a run share theirs. Nothing below `test/` is packaged.
 */
import crypto, { type KeyObject } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { keptKeysVariable } from './run-directory.ts';

/** More than any one test draws where it matters that they differ. */
const ringLength = 24;
const keptBits = 2048;

interface Pair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}
type Make = (...args: readonly unknown[]) => unknown;

const makeSync = crypto.generateKeyPairSync as unknown as Make;
const make = crypto.generateKeyPair as unknown as Make;
const makeAsync = promisify(crypto.generateKeyPair) as unknown as Make;

const ring: Pair[] = [];
let drawn = 0;

/** The next of the ring where it would do, else undefined. */
function draw(type: unknown, options: unknown): Pair | undefined {
  const isPlain = JSON.stringify(options) === JSON.stringify({ modulusLength: keptBits });
  if (type !== 'rsa' || !isPlain) return undefined;
  const at = drawn++ % ringLength;
  return (ring[at] ??= kept(at));
}

function kept(at: number): Pair {
  const directory = process.env[keptKeysVariable];
  if (directory === undefined) return makeSync('rsa', { modulusLength: keptBits }) as Pair;
  const path = join(directory, `${at}.pem`);
  let pem: string;
  try {
    pem = readFileSync(path, 'utf8');
  } catch {
    const { privateKey } = makeSync('rsa', { modulusLength: keptBits }) as Pair;
    pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
    const own = join(directory, `${at}.${crypto.randomUUID()}`);
    writeFileSync(own, pem, { mode: 0o600 });
    renameSync(own, path); // another file may have been as quick; either key is as good
  }
  const privateKey = crypto.createPrivateKey(pem);
  return { privateKey, publicKey: crypto.createPublicKey(privateKey) };
}

crypto.generateKeyPairSync = ((type: unknown, options: unknown) =>
  draw(type, options) ?? makeSync(type, options)) as typeof crypto.generateKeyPairSync;

const answer: Make = (type, options, ...rest) => make(type, options, ...rest);
crypto.generateKeyPair = Object.assign(answer, {
  [promisify.custom]: (type: unknown, options: unknown) => {
    const pair = draw(type, options);
    return pair ? Promise.resolve(pair) : makeAsync(type, options);
  },
}) as unknown as typeof crypto.generateKeyPair;
syncBuiltinESMExports();
