import test from 'ava';
import { startPatiently } from '../../../client/front-end/patient-start.ts';
import { ZtnaError, type ErrorCode } from '../../../protocol/index.ts';

const passing = ['ERR_LIMIT_RATE'] as const;

/** Fails with each of the codes, and then starts; `waitMs` passes at each wait. */
function scene(codes: readonly ErrorCode[], waitMs = 0) {
  const left = [...codes];
  const lines: string[] = [];
  const controller = new AbortController();
  let nowMs = 0;
  const started = startPatiently({
    start: async () => {
      const code = left.shift();
      if (code) throw new ZtnaError(code);
      return Promise.resolve('started');
    },
    passing,
    say: (line) => lines.push(line),
    signal: controller.signal,
    wait: async () => {
      nowMs += waitMs;
      return Promise.resolve();
    },
    nowMs: () => nowMs,
  });
  return { started, lines };
}

test('startPatiently - tries again where the relay has too much to do, and says so', async (t) => {
  const { started, lines } = scene(['ERR_LIMIT_RATE', 'ERR_LIMIT_RATE']);
  t.is(await started, 'started');
  t.is(lines.length, 2);
  t.regex(lines[0] ?? '', /ERR_LIMIT_RATE.*trying again in \d+\.\d s/);
});

test('startPatiently - anything else is the command’s failure at once', async (t) => {
  const { started, lines } = scene(['ERR_LIMIT_RATE', 'ERR_NETWORK_CAPTIVE_PORTAL']);
  await t.throwsAsync(started, { code: 'ERR_NETWORK_CAPTIVE_PORTAL' });
  t.is(lines.length, 1);
});

test('startPatiently - gives up after a minute', async (t) => {
  const busy = Array.from({ length: 20 }, () => 'ERR_LIMIT_RATE' as const);
  const { started, lines } = scene(busy, 10_000);
  await t.throwsAsync(started, { code: 'ERR_LIMIT_RATE' });
  t.is(lines.length, 6);
});
