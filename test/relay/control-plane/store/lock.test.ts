import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { openStore } from '../../../../relay/control-plane/store/index.ts';
import { lockDirectory } from '../../../../relay/directory-lock.ts';
import { temporaryDirectory } from '../fixture.ts';
import type { Readable, Writable } from 'node:stream';

const writer = fileURLToPath(new URL('./writer-process.ts', import.meta.url));

type Child = ChildProcessByStdio<Writable, Readable, null>;

function startWriter(t: ExecutionContext, ...args: string[]): Child {
  const child = spawn(process.execPath, [writer, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => child.kill('SIGKILL'));
  return child;
}

async function readLines(child: Child, count: number): Promise<string[]> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (lines.length === count) break;
  }
  return lines;
}

async function kill(child: Child): Promise<void> {
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

test('openStore - names the other process that holds the directory', async (t) => {
  const directory = temporaryDirectory(t);
  const child = startWriter(t, directory, 'hold');
  t.deepEqual(await readLines(child, 1), ['ready']);
  const error = await t.throwsAsync(openStore({ directory }), { code: 'ERR_CONFIG_LOCKED' });
  t.regex(error.message, new RegExp(`process ${String(child.pid)} `));
  await kill(child);
});

test('openStore - takes over from a killed process and finds all that it acknowledged', async (t) => {
  const directory = temporaryDirectory(t);
  for (let round = 0; round < 2; round++) {
    const child = startWriter(t, directory, round === 0 ? 'write' : 'hold');
    const lines = await readLines(child, round === 0 ? 40 : 1);
    await kill(child);
    t.true(existsSync(join(directory, 'store.lock')));
    if (round > 0) continue;
    const acknowledged = Number(lines.at(-1));
    const store = await openStore({ directory });
    const names = await store.db
      .selectFrom('users')
      .select('name')
      .orderBy('createdAtMs')
      .execute();
    t.true(names.length >= acknowledged);
    t.deepEqual(
      names.map((row) => row.name),
      names.map((_, index) => `user${String(index + 1)}`),
    );
    await store.close();
  }
  await (await openStore({ directory })).close();
});

test('lockDirectory - takes over a file cut short and one whose process id lives on in another process', (t) => {
  const directory = temporaryDirectory(t);
  const path = join(directory, 'store.lock');
  for (const text of ['', '{"pid":', '{"pid":-1}', '{"pid":1,"startedAt":"not its start"}']) {
    writeFileSync(path, text);
    const lock = lockDirectory(path);
    t.is((JSON.parse(readFileSync(path, 'utf8')) as { pid: number }).pid, process.pid);
    lock.release();
    lock.release();
    t.deepEqual(readdirSync(directory), []);
  }
});

test('lockDirectory - leaves the file of a process that lives', (t) => {
  const path = join(temporaryDirectory(t), 'store.lock');
  const text = JSON.stringify({ pid: process.ppid, startedAt: null });
  writeFileSync(path, text);
  t.throws(() => lockDirectory(path), { code: 'ERR_CONFIG_LOCKED' });
  t.is(readFileSync(path, 'utf8'), text);
});
