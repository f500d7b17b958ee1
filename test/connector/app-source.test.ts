import test from 'ava';
import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ZtnaError } from '../../protocol/index.ts';
import { createLogger } from '../../protocol/host/index.ts';
import { parseAppArguments, type AppMap } from '../../connector/app-map.ts';
import { AppSource } from '../../connector/app-source.ts';
import { maxConfigBytes } from '../../connector/limits.ts';
import { eventsOf, temporaryDirectory } from './temporary-directory.ts';
import type { ExecutionContext } from 'ava';

async function openSource(t: ExecutionContext, text?: string, flags: AppMap = new Map()) {
  const dir = await temporaryDirectory(t);
  const file = join(dir, 'connector.yaml');
  if (text !== undefined) await writeFile(file, text);
  const log: string[] = [];
  const changes: (readonly string[])[] = [];
  const changed = Promise.withResolvers<AppMap>();
  const source = await AppSource.open({
    dir,
    flags,
    logger: createLogger({ program: 'test', format: 'json', write: (line) => log.push(line) }),
    onChange: (apps, gone) => {
      changes.push(gone);
      changed.resolve(apps);
    },
  });
  t.teardown(() => {
    source.stop();
  });
  return { source, file, log, changes, changed: changed.promise };
}

test('AppSource - joins file and command line', async (t) => {
  const flags = parseAppArguments(['db=tcp://127.0.0.1:9']);
  const { source } = await openSource(t, 'apps: { db: "tcp://h:1", wiki: "tcp://h:2" }', flags);
  t.is(source.apps.get('db')?.target.port, 9);
  t.is(source.apps.get('wiki')?.target.port, 2);
});

test('AppSource - needs no file', async (t) => {
  const { source, log } = await openSource(t);
  await source.reload();
  t.is(source.apps.size, 0);
  t.deepEqual(log, []);
});

test('AppSource - names the apps that were removed or moved', async (t) => {
  const { source, file, changes } = await openSource(
    t,
    'apps: { a: "tcp://h:1", b: "tcp://h:2", c: "tcp://h:3" }',
  );
  await writeFile(file, 'apps: { a: "tcp://h:1", b: "tcp://h:9" }');
  await source.reload();
  t.deepEqual(changes, [['b', 'c']]);
  await source.reload();
  t.is(changes.length, 1);
});

test('AppSource - sees by itself a file that is swapped', async (t) => {
  const { file, changed } = await openSource(t, 'apps: { a: "tcp://h:1" }');
  const keepAlive = setInterval(() => undefined, 1_000); // the watcher itself holds no process
  await writeFile(`${file}.new`, 'apps: { b: "tcp://h:22" }');
  await rename(`${file}.new`, file);
  t.deepEqual([...(await changed).keys()], ['b']);
  clearInterval(keepAlive);
});

test('AppSource - keeps what it has when the file goes bad or goes away', async (t) => {
  const { source, file, log, changes } = await openSource(t, 'apps: { a: "tcp://h:1" }');
  await writeFile(file, 'apps: { a: 5 }');
  await source.reload();
  await rm(file);
  await source.reload();
  t.deepEqual([...source.apps.keys()], ['a']);
  t.deepEqual(changes, []);
  t.deepEqual(eventsOf(log), ['apps_reload_refused', 'apps_file_missing']);
});

test('AppSource - refuses to start with a bad or oversized file', async (t) => {
  for (const text of ['apps: [', `# ${'x'.repeat(maxConfigBytes)}`]) {
    const error = await t.throwsAsync(openSource(t, text), { instanceOf: ZtnaError });
    t.is(error.code, 'ERR_CONFIG_INVALID');
  }
});
