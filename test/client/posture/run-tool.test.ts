import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { maxToolBytes, runTool } from '../../../client/posture/run-tool.ts';
import { writeFakeTool } from './write-fake-tool.ts';

/** A program in a directory of its own that runs this shell script. */
async function script(t: ExecutionContext, body: string): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-tool-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, 'tool');
  await writeFakeTool(file, body);
  return file;
}

/** Long enough for every tool that is not to be too late. */
const patient = { timeoutMs: 60_000 };

/** Resolves once no such process is left, but for one that nobody has waited for. */
async function isGone(pid: number): Promise<void> {
  for (;;) {
    try {
      if (/^State:\tZ/m.test(readFileSync(`/proc/${String(pid)}/status`, 'utf8'))) return;
    } catch {
      return;
    }
    await wait(10);
  }
}

test.serial('runTool - answers exit code and both streams', async (t) => {
  const file = await script(t, 'echo "out $1"; echo err >&2; exit 3');
  t.deepEqual(await runTool(file, ['a b'], patient), {
    exitCode: 3,
    stdout: 'out a b\n',
    stderr: 'err\n',
  });
});

test.serial(
  'runTool - lets a tool see no environment of ours, no input, no shell and no directory of ours',
  async (t) => {
    process.env['ZTNA_CANARY'] = 'canary';
    const file = await script(t, '/usr/bin/env; pwd; read line || echo no input; echo "$1"');
    const answer = await runTool(file, ['$(echo x); `id`'], patient);
    t.true('stdout' in answer);
    const lines = 'stdout' in answer ? answer.stdout.split('\n') : [];
    const shellsOwn = /^(?:PWD|OLDPWD|SHLVL|_)=/;
    const variables = lines.filter((line) => /^\w+=/.test(line) && !shellsOwn.test(line));
    t.deepEqual(variables.sort(), ['LANG=C', 'LC_ALL=C']);
    t.true(lines.includes('/'));
    t.true(lines.includes('no input'));
    t.true(lines.includes('$(echo x); `id`'));
  },
);

test.serial(
  'runTool - calls missing what is not there, is not to be run, or has no name',
  async (t) => {
    const file = await script(t, 'exit 0');
    const plain = join(dirname(file), 'plain');
    await writeFile(plain, '#!/bin/sh\n', { mode: 0o644 });
    for (const path of [`${file}-other`, plain, tmpdir(), 'bad\0name', '']) {
      t.deepEqual(await runTool(path, [], patient), { failure: 'missing' }, path);
    }
  },
);

/** Resolves with the process that the tool has noted beside itself. */
async function notedPid(file: string): Promise<number> {
  for (;;) {
    const pid = existsSync(`${file}.pid`) ? Number(readFileSync(`${file}.pid`, 'utf8')) : 0;
    if (pid > 0) return pid;
    await wait(5);
  }
}

test.serial('runTool - gives up on a tool that takes too long', async (t) => {
  const file = await script(t, 'trap "" TERM; sleep 600');
  t.deepEqual(await runTool(file, [], { timeoutMs: 50 }), { failure: 'timeout' });
});

test.serial('runTool - kills a tool with all that it started', async (t) => {
  const controller = new AbortController();
  const file = await script(t, 'sleep 600 & echo $! > "$0.pid"; trap "" TERM; sleep 600');
  const answer = runTool(file, [], { ...patient, signal: controller.signal });
  const pid = await notedPid(file);
  controller.abort();
  t.deepEqual(await answer, { failure: 'timeout' });
  await isGone(pid);
});

test.serial('runTool - kills what a tool left behind with its output', async (t) => {
  const controller = new AbortController();
  const file = await script(t, 'sleep 600 & echo $! > "$0.pid"; echo done');
  const answer = runTool(file, [], { ...patient, signal: controller.signal });
  const pid = await notedPid(file);
  controller.abort();
  t.deepEqual(await answer, { failure: 'timeout' });
  await isGone(pid);
});

test.serial('runTool - kills a tool that floods either stream', async (t) => {
  for (const stream of ['', ' >&2']) {
    const file = await script(t, `echo $$ > "$0.pid"; while :; do echo flood${stream}; done`);
    t.deepEqual(await runTool(file, [], patient), { failure: 'flood' });
    await isGone(Number(readFileSync(`${file}.pid`, 'utf8')));
  }
});

test.serial('runTool - takes as much as the cap, and not a byte more', async (t) => {
  const file = await script(t, 'head -c "$1" /dev/zero');
  const answer = await runTool(file, [String(maxToolBytes)], patient);
  t.is('stdout' in answer ? answer.stdout.length : 0, maxToolBytes);
  t.deepEqual(await runTool(file, [String(maxToolBytes + 1)], patient), { failure: 'flood' });
});

test.serial('runTool - answers binary output as text, whatever it is', async (t) => {
  const file = await script(t, 'head -c 5000 /dev/urandom; printf "\\377\\000\\200"');
  const answer = await runTool(file, [], patient);
  t.true('stdout' in answer && answer.stdout.length > 0);
});

test.serial('runTool - says so when a tool dies of a signal', async (t) => {
  t.deepEqual(await runTool(await script(t, 'kill -SEGV $$'), [], patient), { failure: 'killed' });
});

test.serial('runTool - ends the tool when it is told to, and starts none after that', async (t) => {
  const controller = new AbortController();
  const file = await script(t, 'echo $$ > "$0.pid"; sleep 600');
  const answer = runTool(file, [], { ...patient, signal: controller.signal });
  const pid = await notedPid(file);
  controller.abort();
  t.deepEqual(await answer, { failure: 'timeout' });
  await isGone(pid);
  const other = await script(t, 'touch "$0.ran"');
  t.deepEqual(await runTool(other, [], { signal: controller.signal }), { failure: 'timeout' });
  t.false(existsSync(`${other}.ran`));
});
