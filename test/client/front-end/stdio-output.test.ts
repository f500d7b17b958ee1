import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const program = fileURLToPath(new URL('stdio-program.ts', import.meta.url));

test('openStdioOutput - shows its end to a reader on a socket while the program lives on', async (t) => {
  const child = spawn(process.execPath, [program]);
  t.teardown(() => child.kill('SIGKILL'));
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await once(child.stdout, 'end');
  t.is(text, 'hello\n');
  t.is(child.exitCode, null, 'the program itself still runs');
  child.stdin.end();
  const [code] = (await once(child, 'exit')) as [number];
  t.is(code, 0);
});

test('openStdioOutput - shows its end to a reader on a pipe while the program lives on', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-pipe-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const pipe = join(dir, 'pipe');
  await once(spawn('mkfifo', [pipe]), 'exit');
  const child = spawn('sh', ['-c', 'exec "$0" "$1" > "$2"', process.execPath, program, pipe]);
  t.teardown(() => child.kill('SIGKILL'));
  const reader = spawn('cat', [pipe]);
  t.teardown(() => reader.kill('SIGKILL'));
  let text = '';
  reader.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  await once(reader, 'close');
  t.is(text, 'hello\n');
  t.is(child.exitCode, null, 'the program itself still runs');
  child.stdin.end();
  const [code] = (await once(child, 'exit')) as [number];
  t.is(code, 0);
});

test('openStdioOutput - ends on a file without harm', async (t) => {
  const child = spawn('sh', ['-c', '"$0" "$1" > /dev/null', process.execPath, program]);
  t.teardown(() => child.kill('SIGKILL'));
  await once(child.stderr, 'data');
  child.stdin.end();
  const [code] = (await once(child, 'exit')) as [number];
  t.is(code, 0);
});
