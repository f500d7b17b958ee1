import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { findAntivirus } from '../../../client/posture/antivirus.ts';
import {
  isRunning,
  parsePs,
  parseTasklist,
  readProcesses,
} from '../../../client/posture/process-list.ts';
import { failures, said } from './answers.ts';

async function fakeProc(t: ExecutionContext, comms: Record<string, string>): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'ztna-proc-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  for (const [id, comm] of Object.entries(comms)) {
    await mkdir(join(dir, id));
    await writeFile(join(dir, id, 'comm'), comm);
  }
  return dir;
}

test('readProcesses - sees this process and the first one', async (t) => {
  const processes = await readProcesses();
  t.true((processes?.length ?? 0) >= 2);
  const { uid } = process.getuid ? { uid: process.getuid() } : { uid: undefined };
  t.true(processes?.some((each) => each.uid === uid));
});

test('readProcesses - is undefined where others’ processes are hidden, or there is no /proc', async (t) => {
  t.is(await readProcesses(await fakeProc(t, { '77': 'sh\n' })), undefined);
  t.is(await readProcesses('/nowhere'), undefined);
});

test('readProcesses - leaves out what ends while it looks, and takes names as they are', async (t) => {
  const proc = await fakeProc(t, { '1': 'init\n', '5': '(evil)\nclamd\n', '6': '', self: 'x' });
  await mkdir(join(proc, '9'));
  const names = (await readProcesses(proc))?.map(({ name }) => name);
  t.deepEqual(names?.sort(), ['(evil)', 'init']);
});

test('isRunning - compares names as each platform has them', (t) => {
  const running = (name: string) => [{ name, uid: 0 }];
  t.true(isRunning(running('falcon-sensor'), 'falcon-sensor', 'linux'));
  t.true(isRunning(running('corp-monitoring'), 'corp-monitoring-agent', 'linux'));
  t.false(isRunning(running('corp-monitoring'), 'corp-monitoring-agent', 'darwin'));
  t.false(isRunning(running('falcon'), 'falcon-sensor', 'linux'));
  t.true(isRunning(running('CSFalconService.exe'), 'csfalconservice', 'win32'));
  t.false(isRunning(running('Falcon'), 'falcon', 'linux'));
});

test('findAntivirus - knows those that watch, unless the user has started one alone', (t) => {
  const of = (name: string, uid: number, own = 1_000) => findAntivirus([{ name, uid }], own).result;
  t.is(of('falcon-sensor', 0), 'on');
  t.is(of('clamd', 110), 'on');
  t.is(of('clamd', 1_000), 'off');
  t.is(of('clamd', 0, 0), 'on');
  t.is(of('osqueryd', 0), 'off');
  t.is(of('constructor', 0), 'off');
  t.is(findAntivirus([], 1_000).result, 'off');
  t.is(findAntivirus(undefined, 1_000).result, 'unknown');
});

test('parsePs - reads paths with spaces, and only a list that is whole', (t) => {
  const text =
    '    0 /sbin/launchd\n  501 /Applications/My App.app/Contents/MacOS/My App\n    0 /usr/libexec/XProtectBehaviorService\n  501 \n';
  t.deepEqual(parsePs(said(text))?.slice(0, 3), [
    { name: 'launchd', uid: 0 },
    { name: 'My App', uid: 501 },
    { name: 'XProtectBehaviorService', uid: 0 },
  ]);
  for (const other of ['', 'ps: illegal option', '  501 /bin/zsh\n', `${text}gibberish\n`]) {
    t.is(parsePs(said(other)), undefined);
  }
  t.is(parsePs(said(text, 1)), undefined);
  for (const failure of failures) t.is(parsePs(failure), undefined);
});

test('parseTasklist - reads names of any language, and only a list that is whole', (t) => {
  const text =
    '"System Idle Process","0","Services","0","8 K"\r\n"MsMpEng.exe","4172","Dienste","0","212.504 K"\r\n';
  t.deepEqual(
    parseTasklist(said(text))?.map(({ name }) => name),
    ['System Idle Process', 'MsMpEng.exe'],
  );
  for (const other of ['', 'INFO: No tasks are running', `${text}x`]) {
    t.is(parseTasklist(said(other)), undefined);
  }
  for (const failure of failures) t.is(parseTasklist(failure), undefined);
});
