/**
 * A stand-in for tests whose subject is not how dear a guess is: loaded into a process, it makes scrypt there a
 * thousand times cheaper than its caller asks for. The product's own files know no other cost than the real one, and
 * nothing below `test/` is packaged, so no installation can come to this.
 */
import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';

const { scrypt } = crypto;
const cheapRounds = 128;

interface Held {
  readonly begun: () => void;
  readonly released: Promise<void>;
}
let held: Held | undefined;

/** Keeps the hash that is asked for next waiting: `begun` resolves when it is, and it goes on with `release`. */
export function holdNextHash(): { readonly begun: Promise<void>; release(): void } {
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  const begun = new Promise<void>((resolve) => (held = { begun: resolve, released }));
  return { begun, release };
}

const cheaper: unknown = (...given: unknown[]) => {
  const [password, salt, bytes, options, done] = given;
  const cheap = { ...(options as crypto.ScryptOptions), N: cheapRounds };
  const hash = () => {
    (scrypt as (...args: unknown[]) => void)(password, salt, bytes, cheap, done);
  };
  const hold = held;
  held = undefined;
  if (!hold) hash();
  else {
    void hold.released.then(hash);
    hold.begun();
  }
};
crypto.scrypt = cheaper as typeof scrypt;
syncBuiltinESMExports();
