import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { takeTurn } from '../../../client/sign-in/one-at-a-time.ts';

async function profileOf(t: ExecutionContext) {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-turn-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return { name: 'default', dir };
}

const never = new AbortController().signal;

test('takeTurn - one has its turn at a time, and the next hears that it waited', async (t) => {
  const profile = await profileOf(t);
  const first = await takeTurn(profile, never);
  t.false(first.hasWaited);
  let hasSecond = false;
  const waiting = takeTurn(profile, never).then((turn) => {
    hasSecond = true;
    return turn;
  });
  await new Promise((resolve) => setImmediate(resolve));
  t.false(hasSecond);
  await first.end();
  const second = await waiting;
  t.true(second.hasWaited);
  await second.end();
  t.false((await takeTurn(profile, never)).hasWaited);
});

test('takeTurn - whoever was killed keeps nobody waiting', async (t) => {
  const profile = await profileOf(t);
  const { pid } = spawnSync(process.execPath, ['--version']);
  await writeFile(join(profile.dir, 'sign-in.turn'), String(pid));
  await t.notThrowsAsync(takeTurn(profile, never));
});

test('takeTurn - no turn is for ever, whatever runs under its number now', async (t) => {
  const profile = await profileOf(t);
  const path = join(profile.dir, 'sign-in.turn');
  await writeFile(path, String(process.pid));
  const longAgo = new Date(Date.now() - 3_600_000);
  await utimes(path, longAgo, longAgo);
  await t.notThrowsAsync(takeTurn(profile, never));
});

test('takeTurn - gives up waiting with the command', async (t) => {
  const profile = await profileOf(t);
  await takeTurn(profile, never);
  const stopping = new AbortController();
  const waiting = takeTurn(profile, stopping.signal);
  stopping.abort();
  await t.throwsAsync(waiting, { name: 'AbortError' });
});
