import test from 'ava';
import { ZtnaError } from '../../../protocol/errors.ts';
import { fullJitterDelayMs, redialForever } from '../../../protocol/host/redial.ts';

test('fullJitterDelayMs - is spread from zero to its ceiling, also at the cap', (t) => {
  const delays = Array.from({ length: 1_000 }, () => fullJitterDelayMs(1_000, { capMs: 1_000 }));
  t.true(delays.every((delayMs) => delayMs >= 0 && delayMs <= 1_000));
  for (let quarter = 0; quarter < 4; quarter++) {
    const share = delays.filter((d) => d >= quarter * 250 && d < (quarter + 1) * 250).length;
    t.true(share > 150 && share < 350, `quarter ${quarter} holds ${share}`);
  }
});

test('fullJitterDelayMs - doubles its ceiling with each attempt', (t) => {
  for (const attempt of [0, 1, 2, 3]) {
    const delays = Array.from({ length: 500 }, () => fullJitterDelayMs(attempt, { baseMs: 100 }));
    const highest = Math.max(...delays);
    t.true(highest <= 100 * 2 ** attempt);
    t.true(highest > 60 * 2 ** attempt);
  }
});

test('redialForever - goes on after errors of every kind, a TypeError too', async (t) => {
  const controller = new AbortController();
  const errors = [new TypeError('broken'), new ZtnaError('ERR_IDENTITY_REVOKED'), 'a string'];
  const waited: string[] = [];
  let runs = 0;
  await redialForever({
    signal: controller.signal,
    baseMs: 1,
    dial: () => {
      const error = errors.shift();
      // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- as a library might
      return error === undefined ? Promise.resolve('connection') : Promise.reject(error);
    },
    run: () => {
      runs += 1;
      controller.abort();
      return Promise.resolve();
    },
    onWaiting: (error) => waited.push(error.code),
  });
  t.is(runs, 1);
  t.deepEqual(waited, ['ERR_INTERNAL', 'ERR_IDENTITY_REVOKED', 'ERR_INTERNAL']);
});

test('redialForever - dials again when a connection is lost, waiting before it', async (t) => {
  const controller = new AbortController();
  const trace: string[] = [];
  await redialForever({
    signal: controller.signal,
    baseMs: 1,
    dial: () => {
      trace.push('dial');
      return Promise.resolve(trace.length);
    },
    run: () => {
      trace.push('run');
      if (trace.filter((step) => step === 'run').length === 3) controller.abort();
      return Promise.resolve(new ZtnaError('ERR_RELAY_DRAINING'));
    },
    onWaiting: (error) => trace.push(error.code),
  });
  const lost = ['dial', 'run', 'ERR_RELAY_DRAINING'];
  t.deepEqual(trace, [...lost, ...lost, 'dial', 'run']);
});

test('redialForever - a connection that falls at once does not start the delays anew', async (t) => {
  const controller = new AbortController();
  const ceilings: number[] = [];
  await redialForever({
    signal: controller.signal,
    baseMs: 1,
    dial: () => Promise.resolve('connection'),
    run: () => {
      if (ceilings.length === 6) controller.abort();
      return Promise.reject(new ZtnaError('ERR_RELAY_UNREACHABLE'));
    },
    onWaiting: (_error, delayMs) => ceilings.push(delayMs),
  });
  t.is(ceilings.length, 6);
  t.true(ceilings.every((delayMs, attempt) => delayMs <= 2 ** attempt));
});

test('redialForever - throws an error that is fatal', async (t) => {
  let dials = 0;
  await t.throwsAsync(
    redialForever({
      signal: new AbortController().signal,
      baseMs: 1,
      dial: () => {
        dials += 1;
        return Promise.reject(new ZtnaError('ERR_IDENTITY_REVOKED'));
      },
      run: () => Promise.resolve(),
      isFatal: (error) => error.code === 'ERR_IDENTITY_REVOKED',
    }),
    { code: 'ERR_IDENTITY_REVOKED' },
  );
  t.is(dials, 1);
});

/** Ceilings of seconds from the first wait on, so that a wait which is not cut short shows. */
const longBaseMs = 60_000_000;

test('redialForever - a wake event ends the wait', async (t) => {
  const controller = new AbortController();
  const wake = new EventTarget();
  let announcedMs = 0;
  let dials = 0;
  const startedAtMs = performance.now();
  await redialForever({
    signal: controller.signal,
    baseMs: longBaseMs,
    wake,
    dial: () => {
      dials += 1;
      if (dials === 20) controller.abort();
      return Promise.reject(new ZtnaError('ERR_RELAY_UNREACHABLE'));
    },
    run: () => Promise.resolve(),
    onWaiting: (_error, delayMs) => {
      announcedMs += delayMs;
      setImmediate(() => wake.dispatchEvent(new Event('wake')));
    },
  });
  t.true(performance.now() - startedAtMs < announcedMs);
});

test('redialForever - ends in the midst of a wait when its signal aborts', async (t) => {
  const delaysMs: number[] = [];
  const startedAtMs = performance.now();
  const diallers = Array.from({ length: 20 }, () => {
    const controller = new AbortController();
    return redialForever({
      signal: controller.signal,
      baseMs: longBaseMs,
      dial: () => Promise.reject(new ZtnaError('ERR_RELAY_UNREACHABLE')),
      run: () => Promise.resolve(),
      onWaiting: (_error, delayMs) => {
        delaysMs.push(delayMs);
        setImmediate(() => {
          controller.abort();
        });
      },
    });
  });
  await Promise.all(diallers);
  t.is(delaysMs.length, 20);
  t.true(performance.now() - startedAtMs < Math.max(...delaysMs));
});
