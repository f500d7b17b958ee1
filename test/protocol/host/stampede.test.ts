import test from 'ava';
import { ZtnaError } from '../../../protocol/errors.ts';
import { Backoff } from '../../../protocol/host/redial.ts';

/** Things to do at moments of a time that a test makes pass. */
class Agenda {
  nowMs = 0;
  readonly #due = new Map<number, (() => void)[]>();
  readonly #times: number[] = [];

  in(delayMs: number, act: () => void): void {
    const atMs = Math.ceil(this.nowMs + delayMs);
    const others = this.#due.get(atMs);
    if (others) {
      others.push(act);
      return;
    }
    this.#due.set(atMs, [act]);
    this.#times.push(atMs);
    this.#times.sort((a, b) => b - a);
  }

  /** Lets time pass until nothing is left to do or `isDone`. */
  run(isDone: () => boolean): void {
    while (!isDone()) {
      const atMs = this.#times.pop();
      if (atMs === undefined) return;
      this.nowMs = atMs;
      const acts = this.#due.get(atMs) ?? [];
      this.#due.delete(atMs);
      for (const act of acts) act();
    }
  }
}

interface Relay {
  /** From when on it answers at all. */
  readonly upAtMs: number;
  readonly acceptsPerSecond: number;
  /** How many may wait to be greeted; the others are told ERR_LIMIT_RATE. */
  readonly waiting: number;
}

interface Outcome {
  readonly backAtMs: readonly number[];
  /** Attempts in each tenth of a second. */
  readonly attempts: readonly number[];
}

const clients = 2_000;
const unreachable = new ZtnaError('ERR_RELAY_UNREACHABLE');
const overloaded = new ZtnaError('ERR_LIMIT_RATE');
const giveUpMs = 5_000;

/** Two thousand clients that lost the same relay at 0 and dial it until they are back. */
function stampede(
  relay: Relay,
  delayOf: (backoff: Backoff, error: ZtnaError) => number = (backoff, error) =>
    backoff.nextMs(error),
): Outcome {
  const agenda = new Agenda();
  const backAtMs: number[] = [];
  const attempts: number[] = [];
  let freeAtMs = relay.upAtMs;
  const workMs = 1_000 / relay.acceptsPerSecond;
  for (let i = 0; i < clients; i++) {
    const backoff = new Backoff({ nowMs: () => agenda.nowMs });
    const again = (error: ZtnaError): void => {
      agenda.in(delayOf(backoff, error), dial);
    };
    const dial = (): void => {
      const bin = Math.floor(agenda.nowMs / 100);
      attempts[bin] = (attempts[bin] ?? 0) + 1;
      if (agenda.nowMs < relay.upAtMs) {
        again(unreachable);
        return;
      }
      freeAtMs = Math.max(freeAtMs, agenda.nowMs);
      const waitMs = freeAtMs - agenda.nowMs;
      if (waitMs / workMs >= relay.waiting) {
        again(overloaded);
        return;
      }
      freeAtMs += workMs;
      if (waitMs > giveUpMs) {
        agenda.in(giveUpMs, () => {
          again(unreachable);
        });
        return;
      }
      agenda.in(waitMs + workMs, () => backAtMs.push(agenda.nowMs));
    };
    again(unreachable);
  }
  agenda.run(() => backAtMs.length === clients || agenda.nowMs > 600_000);
  return { backAtMs, attempts: Array.from(attempts, (count: number | undefined) => count ?? 0) };
}

for (const [name, relay] of [
  ['is back after a second', { upAtMs: 1_000, acceptsPerSecond: 150, waiting: 256 }],
  ['is back after ten seconds', { upAtMs: 10_000, acceptsPerSecond: 150, waiting: 256 }],
  ['never went, beside the one that did', { upAtMs: 0, acceptsPerSecond: 150, waiting: 256 }],
  ['has a short queue', { upAtMs: 1_000, acceptsPerSecond: 150, waiting: 32 }],
] as const) {
  test(`Backoff - 2,000 clients are back within 30 s of a relay that ${name}`, (t) => {
    const { backAtMs, attempts } = stampede(relay);
    t.is(backAtMs.length, clients);
    const lastMs = Math.max(...backAtMs);
    t.true(lastMs - relay.upAtMs <= 30_000, `the last was back after ${lastMs} ms`);
    // Past the first moments, which all must share, they come spread over the two seconds of the cap.
    const later = attempts.slice(40);
    const peak = Math.max(0, ...later);
    t.true(peak <= (3 * clients) / 20, `${peak} attempts within 100 ms`);
  });
}

test('Backoff - 2,000 clients leave no gap for a wave to form in', (t) => {
  const { attempts } = stampede({ upAtMs: 25_000, acceptsPerSecond: 10_000, waiting: 10_000 });
  // From 5 s on every client waits two seconds at most: about 200 attempts in each tenth of a second.
  const steady = attempts.slice(50, 250);
  t.true(Math.min(...steady) > 100, `${Math.min(...steady)}`);
  t.true(Math.max(...steady) < 330, `${Math.max(...steady)}`);
});

test('Backoff - without jitter the same clients come in waves', (t) => {
  const capped = (): number => 2_000;
  const { attempts } = stampede({ upAtMs: 10_000, acceptsPerSecond: 150, waiting: 256 }, capped);
  t.true(Math.max(...attempts.slice(40)) > 1_000);
});

test('Backoff - waits two seconds at most for half a minute, then ever more, up to thirty', (t) => {
  let nowMs = 0;
  const backoff = new Backoff({ nowMs: () => nowMs });
  const highest = (): number =>
    Math.max(...Array.from({ length: 400 }, () => backoff.nextMs(unreachable)));
  for (const [atMs, least, most] of [
    [0, 1_500, 2_000],
    [29_999, 1_500, 2_000],
    [60_000, 3_000, 4_000],
    [300_000, 15_000, 20_000],
    [3_600_000, 22_500, 30_000],
  ] as const) {
    nowMs = atMs;
    const longestMs = highest();
    t.true(longestMs > least && longestMs <= most, `${atMs}: ${longestMs}`);
  }
});

test('Backoff - starts anew after a steady connection only', (t) => {
  const backoff = new Backoff({ nowMs: () => 0 });
  const highest = (act: () => void): number => {
    let most = 0;
    for (let round = 0; round < 200; round++) {
      for (let i = 0; i < 8; i++) backoff.nextMs(unreachable);
      act();
      most = Math.max(most, backoff.nextMs(unreachable));
    }
    return most;
  };
  t.true(highest(() => backoff.lost(9_999)) > 1_000);
  t.true(highest(() => backoff.lost(10_000)) <= 250);
});

test('Backoff - a relay that has too much to do is given two seconds at once', (t) => {
  const delays = Array.from({ length: 400 }, () =>
    new Backoff({ nowMs: () => 0 }).nextMs(overloaded),
  );
  t.true(Math.max(...delays) > 1_500);
  t.true(Math.min(...delays) < 500);
});
