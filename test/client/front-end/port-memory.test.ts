import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import type { Profile } from '../../../client/agent/profile.ts';
import { recallPort, rememberPort } from '../../../client/front-end/port-memory.ts';

async function openTestProfile(t: ExecutionContext): Promise<Profile> {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-ports-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return { name: 'default', dir };
}

const nothing = { automatic: null, chosen: null };

test('rememberPort - keeps each app’s port and choice, and only the owner may read them', async (t) => {
  const profile = await openTestProfile(t);
  await rememberPort(profile, 'wiki', { automatic: 23_456 });
  await rememberPort(profile, 'wiki', { chosen: '127.0.0.1:80' });
  await rememberPort(profile, 'db', { automatic: 23_457 });
  t.deepEqual(await recallPort(profile, 'wiki'), { automatic: 23_456, chosen: '127.0.0.1:80' });
  t.deepEqual(await recallPort(profile, 'db'), { automatic: 23_457, chosen: null });
  t.is((await stat(join(profile.dir, 'ports.json'))).mode & 0o777, 0o600);
});

test('recallPort - knows nothing of an app that was never seen, whatever its name', async (t) => {
  const profile = await openTestProfile(t);
  await rememberPort(profile, 'wiki', { automatic: 23_456 });
  for (const app of ['db', 'constructor', 'toString'])
    t.deepEqual(await recallPort(profile, app), nothing);
});

test('recallPort - takes a spoilt file for none', async (t) => {
  const profile = await openTestProfile(t);
  for (const text of ['', '{', '[]', '{"wiki":{"automatic":0,"chosen":null}}', '{"wiki":7}']) {
    await writeFile(join(profile.dir, 'ports.json'), text, { mode: 0o600 });
    t.deepEqual(await recallPort(profile, 'wiki'), nothing, text);
  }
});
