import { chmod, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  compileCacheDir,
  compileCacheVariable,
  isPrivate,
} from '../../../protocol/host/compile-cache.ts';
import { launchers, runProgram } from '../../support/program.ts';

const onPosix = process.platform === 'win32' ? test.skip : test;

test('compileCacheDir - lies in the cache of the user, wherever the platform keeps it', (t) => {
  const at = (env: NodeJS.ProcessEnv, platform: NodeJS.Platform) =>
    compileCacheDir(env, platform, '/home/a');
  t.is(at({}, 'linux'), '/home/a/.cache/ztna');
  t.is(at({ XDG_CACHE_HOME: '/c' }, 'linux'), '/c/ztna');
  t.is(at({ XDG_CACHE_HOME: 'relative' }, 'linux'), '/home/a/.cache/ztna');
  t.is(at({}, 'darwin'), '/home/a/Library/Caches/ztna');
});

onPosix('isPrivate - refuses what others may enter, and what they may replace', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'ztna-cache-'));
  t.teardown(() => rm(home, { recursive: true, force: true }));
  const directory = join(home, 'ztna');
  await mkdir(directory, { mode: 0o700 });
  t.true(isPrivate(directory));
  await chmod(directory, 0o750);
  t.false(isPrivate(directory));
  await chmod(directory, 0o700);
  await chmod(home, 0o777);
  t.false(isPrivate(directory));
  await chmod(home, 0o1777);
  t.false(isPrivate(directory));
  await chmod(home, 0o700);
  await symlink(directory, join(home, 'link'));
  t.false(isPrivate(join(home, 'link')));
});

onPosix(
  'compileCacheVariable - names the cache where it is private and no other was named',
  async (t) => {
    const home = await mkdtemp(join(tmpdir(), 'ztna-cache-'));
    t.teardown(() => rm(home, { recursive: true, force: true }));
    const directory = join(home, 'ztna');
    const env = { XDG_CACHE_HOME: home };
    t.deepEqual(compileCacheVariable(env), {}); // it is not there
    await mkdir(directory, { mode: 0o700 });
    t.deepEqual(compileCacheVariable(env), { NODE_COMPILE_CACHE: directory });
    t.deepEqual(compileCacheVariable({ ...env, NODE_COMPILE_CACHE: '/elsewhere' }), {});
    await chmod(directory, 0o770);
    t.deepEqual(compileCacheVariable(env), {});
  },
);

onPosix('programs - keep compiled code for the next start, in a private place only', async (t) => {
  const home = await mkdtemp(join(tmpdir(), 'ztna-cache-'));
  t.teardown(() => rm(home, { recursive: true, force: true }));
  const cache = join(home, 'ztna');
  const help = async () => {
    const { code, stderr } = await runProgram(launchers.ztna, ['--help'], {
      env: { XDG_CACHE_HOME: home, NODE_COMPILE_CACHE: '' }, // not the one of the run
    });
    t.is(code, 0, stderr);
    t.is(stderr, '');
  };
  await help();
  t.is((await readdir(cache)).length, 1);
  await rm(cache, { recursive: true });
  await mkdir(cache);
  await chmod(cache, 0o777);
  await help();
  t.deepEqual(await readdir(cache), []);
});
