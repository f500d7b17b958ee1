import test from 'ava';
import { Liveness, type Activity } from '../../../relay/data-plane/liveness.ts';

const quiet: Activity = {
  wasHeard: false,
  sentBytes: 0,
  queuedBytes: 0,
  isPaused: false,
  isActive: false,
};

/** Steps every 250 ms until `untilMs`; answers what was said and when, `alive` left out. */
function run(
  liveness: Liveness,
  untilMs: number,
  activity: (nowMs: number) => Activity,
): [number, string][] {
  const said: [number, string][] = [];
  for (let nowMs = 250; nowMs <= untilMs; nowMs += 250) {
    const verdict = liveness.step(nowMs, activity(nowMs));
    if (verdict !== 'alive') said.push([nowMs, verdict]);
    if (verdict === 'dead') break;
  }
  return said;
}

test('Liveness - leaves an idle peer alone but for a ping every 50 s', (t) => {
  const answering = run(new Liveness(0), 120_000, (nowMs) => ({
    ...quiet,
    wasHeard: nowMs % 50_000 === 250,
  }));
  t.deepEqual(answering, [
    [50_000, 'ping'],
    [100_000, 'ping'],
  ]);
});

test('Liveness - gives up an idle peer that does not answer its ping within 10 s', (t) => {
  t.deepEqual(
    run(new Liveness(0), 120_000, () => quiet),
    [
      [50_000, 'ping'],
      [58_500, 'dead'],
    ],
  );
});

test('Liveness - asks a peer that owes an answer, and gives it up within 10 s', (t) => {
  const said = run(new Liveness(0), 60_000, () => ({ ...quiet, sentBytes: 100 }));
  t.deepEqual(said, [
    [4_250, 'ping'],
    [8_750, 'dead'],
  ]);
});

test('Liveness - takes anything that is heard, and any byte that leaves a queue, for life', (t) => {
  t.deepEqual(
    run(new Liveness(0), 20_000, (ms) => ({ ...quiet, sentBytes: ms, wasHeard: ms % 3_000 === 0 })),
    [],
  );
  const draining = (ms: number) => ({
    ...quiet,
    sentBytes: 1e6,
    queuedBytes: Math.max(1, 1e6 - ms),
    isPaused: true,
  });
  t.deepEqual(run(new Liveness(0), 60_000, draining), []);
});

test('Liveness - gives up a peer whose queue does not move, although it is not read from', (t) => {
  const stuck = () => ({ ...quiet, sentBytes: 1e6, queuedBytes: 5e5, isPaused: true });
  t.deepEqual(run(new Liveness(0), 60_000, stuck).at(-1), [8_750, 'dead']);
});

test('Liveness - gives up an active peer that falls silent within 10 s of its last sign', (t) => {
  const active = (ms: number) => ({ ...quiet, isActive: true, wasHeard: ms <= 20_000 });
  t.deepEqual(run(new Liveness(0), 60_000, active), [
    [24_000, 'ping'],
    [28_500, 'dead'],
  ]);
});

test('Liveness - leaves an active peer alone that says something every few seconds', (t) => {
  const active = (ms: number) => ({ ...quiet, isActive: true, wasHeard: ms % 3_500 === 0 });
  t.deepEqual(
    run(new Liveness(0), 40_000, active).filter(([, said]) => said === 'dead'),
    [],
  );
});

test('Liveness - does not judge a peer that cannot be heard', (t) => {
  const unread = (ms: number) => ({ ...quiet, sentBytes: ms, isPaused: true });
  t.deepEqual(run(new Liveness(0), 40_000, unread), []);
});

test('Liveness - does not take its own stall for the silence of the peer', (t) => {
  const liveness = new Liveness(0);
  t.is(liveness.step(250, { ...quiet, sentBytes: 100 }), 'alive');
  t.is(liveness.step(30_000, { ...quiet, sentBytes: 100 }), 'alive');
  t.is(liveness.step(30_250, { ...quiet, sentBytes: 100, wasHeard: true }), 'alive');
});
