import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, mkdtemp, rm, symlink, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { FileChecks } from '../../../client/posture/file-check.ts';
import { maxFileBytes, readPlainFile, textOf } from '../../../client/posture/read-file.ts';

async function directory(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-files-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

const going = new AbortController().signal;
const digest = (text: string) => createHash('sha256').update(text).digest('hex');

test('readPlainFile - reads plain files, and those that the kernel makes', async (t) => {
  const dir = await directory(t);
  await writeFile(join(dir, 'a'), 'text\n');
  await symlink(join(dir, 'a'), join(dir, 'link'));
  t.is(textOf(await readPlainFile(join(dir, 'a'))), 'text\n');
  t.is(textOf(await readPlainFile(join(dir, 'link'))), 'text\n');
  t.regex(textOf(await readPlainFile('/proc/self/mounts')) ?? '', / \/proc /);
});

test('readPlainFile - never waits for a pipe or a device, nor reads a directory', async (t) => {
  const dir = await directory(t);
  const pipe = join(dir, 'pipe');
  execFileSync('mkfifo', [pipe]);
  for (const path of [pipe, '/dev/zero', '/dev/tty', dir]) {
    const answer = await readPlainFile(path);
    t.deepEqual(answer, { failure: 'unreadable' }, path);
  }
});

test('readPlainFile - tells what is missing from what is too large', async (t) => {
  const dir = await directory(t);
  const file = join(dir, 'a');
  t.deepEqual(await readPlainFile(file), { failure: 'missing' });
  t.deepEqual(await readPlainFile(join(dir, 'no', 'a')), { failure: 'missing' });
  await writeFile(file, Buffer.alloc(maxFileBytes));
  const whole = await readPlainFile(file);
  t.is('bytes' in whole ? whole.bytes.length : 0, maxFileBytes);
  await writeFile(file, Buffer.alloc(maxFileBytes + 1));
  t.deepEqual(await readPlainFile(file), { failure: 'too_large' });
});

test('FileChecks - finds a file that is there, and one that is not', async (t) => {
  const dir = await directory(t);
  const file = join(dir, 'enrolled');
  const checks = new FileChecks();
  t.is((await checks.find(file, null, going)).result, 'off');
  t.is((await checks.findNone(file, going)).result, 'on');
  await writeFile(file, '');
  t.is((await checks.find(file, null, going)).result, 'on');
  t.is((await checks.findNone(file, going)).result, 'off');
  await chmod(file, 0);
  t.is((await checks.find(file, null, going)).result, 'on');
});

test('FileChecks - finds unknown what cannot be looked at', async (t) => {
  const checks = new FileChecks();
  const tooLong = `/${'x'.repeat(5_000)}`;
  for (const path of [tooLong, 'a\0b']) {
    t.is((await checks.find(path, null, going)).result, 'unknown');
    t.is((await checks.findNone(path, going)).result, 'unknown');
    t.is((await checks.find(path, digest(''), going)).result, 'unknown');
  }
  t.is((await checks.findNone('/', AbortSignal.abort())).result, 'unknown');
  t.is((await checks.find('/etc/passwd', null, AbortSignal.abort())).result, 'unknown');
});

test('FileChecks - compares digests, and reads again what has changed', async (t) => {
  const file = join(await directory(t), 'binary');
  const checks = new FileChecks();
  await writeFile(file, 'good');
  t.is((await checks.find(file, digest('good'), going)).result, 'on');
  t.is((await checks.find(file, digest('good'), going)).result, 'on');
  await writeFile(file, 'evil'); // of the same length
  await utimes(file, 0, 0);
  t.is((await checks.find(file, digest('good'), going)).result, 'off');
  t.is((await checks.find(file, digest('evil'), going)).result, 'on');
});

test('FileChecks - takes no pipe for a file, and none that is too large', async (t) => {
  const dir = await directory(t);
  const checks = new FileChecks();
  execFileSync('mkfifo', [join(dir, 'pipe')]);
  t.is((await checks.find(join(dir, 'pipe'), digest(''), going)).result, 'off');
  await writeFile(join(dir, 'large'), '');
  await truncate(join(dir, 'large'), 64 * 1_048_576 + 1);
  t.is((await checks.find(join(dir, 'large'), digest(''), going)).result, 'unknown');
});
