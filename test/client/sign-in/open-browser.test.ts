import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { watch } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { findBrowser, isWebAddress, openInBrowser } from '../../../client/sign-in/open-browser.ts';

const url = 'https://relay.example.com/sign-in/abc?x=$(touch%20/tmp/x);%20y&z=%27';

for (const [what, env, platform, file] of [
  ['the one that BROWSER names', { BROWSER: '/opt/b' }, 'linux', '/opt/b'],
  ['that of the desktop', { DISPLAY: ':0' }, 'linux', '/usr/bin/xdg-open'],
  ['that of a Wayland desktop', { WAYLAND_DISPLAY: 'w' }, 'linux', '/usr/bin/xdg-open'],
  ['none without a screen', {}, 'linux', undefined],
  ['none where BROWSER is none', { BROWSER: 'none', DISPLAY: ':0' }, 'linux', undefined],
  ['that of macOS', {}, 'darwin', '/usr/bin/open'],
  ['none of a Mac over SSH', { SSH_CONNECTION: 'a b c d' }, 'darwin', undefined],
  ['that of Windows', {}, 'win32', 'C:\\Windows\\System32\\rundll32.exe'],
] as const) {
  test(`findBrowser - takes ${what}`, (t) => {
    t.is(findBrowser(env, platform)?.file, file);
  });
}

test('openInBrowser - gives the address as one argument to a program without a shell, without our secrets', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-browser-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  const [script, seen] = [join(dir, 'browser'), join(dir, 'seen')];
  await writeFile(
    script,
    `#!/bin/sh\n{ echo $#; printf '%s\\n' "$1"; env; } > ${seen}.new\nmv ${seen}.new ${seen}\n`,
  );
  await chmod(script, 0o700);
  process.env['ZTNA_TEST_SECRET'] = 'canary';
  t.teardown(() => delete process.env['ZTNA_TEST_SECRET']);
  const written = new Promise<void>((resolve) => {
    const watcher = watch(dir, (_, name) => {
      if (name !== 'seen') return;
      watcher.close();
      resolve();
    });
  });
  t.true(await openInBrowser({ file: script, args: [] }, url));
  await written;
  const [count, first, ...env] = (await readFile(seen, 'utf8')).split('\n');
  t.is(count, '1');
  t.is(first, url);
  t.false(env.some((line) => line.includes('canary')));
});

test('openInBrowser - says when there is no such program', async (t) => {
  t.false(await openInBrowser({ file: '/nowhere/browser', args: [] }, url));
});

for (const bad of [
  'http://relay.example.com/',
  'file:///etc/passwd',
  'javascript:alert(1)',
  '--new-window',
  'https://relay.example.com/a b',
  'https://relay.example.com/\u001b[2J',
]) {
  test(`openInBrowser - does not show ${JSON.stringify(bad)}`, async (t) => {
    t.false(isWebAddress(bad));
    t.false(await openInBrowser({ file: process.execPath, args: [] }, bad));
  });
}
