import { ZtnaError } from '../../../protocol/index.ts';

/** Who tries to sign in, and from where. */
export interface SignInSource {
  readonly account: string;
  /** The client address, as far as the front door knows it. */
  readonly address: string;
  /** The enrolled device that asks, where there is one: it proved its key, an address proves nothing. Or a known browser. */
  readonly device: string | null;
  /** True when this account has signed in there before. */
  readonly isKnown: boolean;
}

/** A try that was let through. Call one of the two. */
export interface SignInAttempt {
  /** Gives back what a guess costs, but not the work. */
  succeed(): void;
  /** Keeps it. */
  fail(): void;
}

/** Tries at once, and how long until one more. */
export interface BucketSize {
  readonly burst: number;
  readonly refillMs: number;
}

export const defaultThrottle = {
  /** One account on one device, or from one address without a device: the person who mistypes. */
  accountFromSource: { burst: 6, refillMs: 20_000 },
  /** The same for one-time passwords, of which there are only a million. */
  otpFromSource: { burst: 6, refillMs: 120_000 },
  /** One address, any account: spraying. Offices share an address, so it is wide. */
  address: { burst: 60, refillMs: 2_000 },
  /** One account from places it never signed in from, all together: a distributed guess. */
  accountFromUnknown: { burst: 20, refillMs: 30_000 },
  /** The work of hashing, for one account from one source; the right password too costs it. */
  workFromSource: { burst: 10, refillMs: 2_000 },
  /** The same for one account from all places where it is known: whoever can sign in makes as many known browsers as he likes. */
  workFromKnown: { burst: 20, refillMs: 2_000 },
} as const satisfies Record<string, BucketSize>;

/** Buckets kept; beyond that the one nearest to full is forgotten first. */
const maxBuckets = 50_000;

/**
 * Slows guessing without a lock-out: each try takes a token from every bucket it concerns and a success gives
 * them back, so that a thousand tries at once cannot all pass before the first has failed. An account under
 * attack from elsewhere stays open to its owner, whose known device is not counted with strangers. Only the buckets of work
 * get nothing back: who knows a password must not keep the processors from everybody else with it.
 */
export class SignInThrottle {
  readonly #clock: { nowMs(): number };
  readonly #sizes: Readonly<Record<keyof typeof defaultThrottle, BucketSize>>;
  readonly #buckets = new Map<string, Bucket>();

  constructor(
    clock: { nowMs(): number },
    sizes: Readonly<Record<keyof typeof defaultThrottle, BucketSize>> = defaultThrottle,
  ) {
    this.#clock = clock;
    this.#sizes = sizes;
  }

  /** Throws ERR_LIMIT_RATE, saying how long to wait, when one of the buckets is empty. */
  begin(source: SignInSource, factor: 'password' | 'otp' = 'password'): SignInAttempt {
    const { account, address, device, isKnown } = source;
    const nowMs = this.#clock.nowMs();
    const bucket = (name: keyof typeof defaultThrottle, ...key: string[]) =>
      this.#bucket(JSON.stringify([name, ...key]), this.#sizes[name], nowMs);
    const own = factor === 'otp' ? 'otpFromSource' : 'accountFromSource';
    const guesses = [bucket(own, account, device ?? address)];
    // A known device has that one to itself; sharing the wide ones would let strangers drain them.
    if (!isKnown) guesses.push(bucket('address', address), bucket('accountFromUnknown', account));
    const work = factor === 'otp' ? [] : [bucket('workFromSource', account, device ?? address)];
    if (factor !== 'otp' && isKnown) work.push(bucket('workFromKnown', account));
    const all = [...guesses, ...work];
    const waitMs = Math.max(...all.map((bucket) => bucket.waitMs(nowMs)));
    if (waitMs > 0) {
      throw new ZtnaError('ERR_LIMIT_RATE', {
        reason: 'sign_in_throttled',
        hint: `wait ${String(Math.ceil(waitMs / 1000))} s, then try again`,
      });
    }
    for (const bucket of all) bucket.take();
    let isOpen = true;
    return {
      succeed: () => {
        if (isOpen) for (const bucket of guesses) bucket.giveBack();
        isOpen = false;
      },
      fail: () => {
        isOpen = false;
      },
    };
  }

  #bucket(key: string, size: BucketSize, nowMs: number): Bucket {
    const known = this.#buckets.get(key);
    if (known) {
      known.refill(nowMs);
      return known;
    }
    if (this.#buckets.size >= maxBuckets) this.#forgetFullest(nowMs);
    const bucket = new Bucket(size, nowMs);
    this.#buckets.set(key, bucket);
    return bucket;
  }

  #forgetFullest(nowMs: number): void {
    let fullest: string | undefined;
    let fewestMissing = Infinity;
    for (const [key, bucket] of this.#buckets) {
      bucket.refill(nowMs);
      if (bucket.missing <= 0) this.#buckets.delete(key);
      else if (bucket.missing < fewestMissing) {
        fewestMissing = bucket.missing;
        fullest = key;
      }
    }
    if (this.#buckets.size >= maxBuckets && fullest !== undefined) this.#buckets.delete(fullest);
  }
}

class Bucket {
  readonly #size: BucketSize;
  #tokens: number;
  #atMs: number;

  constructor(size: BucketSize, nowMs: number) {
    this.#size = size;
    this.#tokens = size.burst;
    this.#atMs = nowMs;
  }

  get missing(): number {
    return this.#size.burst - this.#tokens;
  }

  refill(nowMs: number): void {
    const gained = Math.max(0, nowMs - this.#atMs) / this.#size.refillMs;
    this.#tokens = Math.min(this.#size.burst, this.#tokens + gained);
    this.#atMs = Math.max(this.#atMs, nowMs);
  }

  waitMs(nowMs: number): number {
    this.refill(nowMs);
    return this.#tokens >= 1 ? 0 : (1 - this.#tokens) * this.#size.refillMs;
  }

  take(): void {
    this.#tokens -= 1;
  }

  giveBack(): void {
    this.#tokens = Math.min(this.#size.burst, this.#tokens + 1);
  }
}
