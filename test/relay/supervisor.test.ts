import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';

const program = fileURLToPath(new URL('../support/relay-supervisor.ts', import.meta.url));

interface Note {
  readonly name: string;
  readonly what: string;
  readonly pid: number;
}

interface Run {
  readonly dir: string;
  readonly process: ChildProcess;
  readonly ready: Promise<void>;
  readonly stdout: string[];
  readonly stderr: string[];
  notes(): Promise<Note[]>;
  /** Waits until a note like that is there. */
  noted(matches: (note: Note) => boolean): Promise<Note>;
}

async function start(
  t: ExecutionContext,
  host = '127.0.0.1',
  shared?: Run,
  env: Readonly<Record<string, string>> = {},
): Promise<Run> {
  const dir = shared?.dir ?? (await mkdtemp(join(tmpdir(), 'ztna-supervisor-')));
  const child = spawn(process.execPath, [program, dir, host], {
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
    env: { ...process.env, ...env },
  });
  const notes = async () => {
    const text = await readFile(join(dir, 'notes'), 'utf8').catch(() => '');
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => {
        const [name = '', what = '', pid] = line.split(' ');
        return { name, what, pid: Number(pid) };
      });
  };
  t.teardown(async () => {
    child.kill('SIGKILL');
    for (const { pid } of await notes()) {
      if (isAlive(pid)) process.kill(pid, 'SIGKILL');
    }
    await rm(dir, { recursive: true, force: true });
  });
  const stderr: string[] = [];
  createInterface({ input: child.stderr }).on('line', (line) => stderr.push(line));
  const stdout: string[] = [];
  const lines = createInterface({ input: child.stdout });
  const ready = new Promise<void>((resolve) => {
    lines.on('line', (line) => {
      stdout.push(line);
      if (line === 'ready') resolve();
    });
  });
  return {
    dir,
    process: child,
    ready,
    stdout,
    stderr,
    notes,
    noted: async (matches) => {
      for (;;) {
        const found = (await notes()).find(matches);
        if (found) return found;
        await wait(20);
      }
    },
  };
}

test('supervisor - the data plane does not inherit the password of the store', async (t) => {
  const run = await start(t, '127.0.0.1', undefined, { PGPASSWORD: 'secret' });
  await run.ready;
  const told = (await run.notes()).filter(({ what }) => what === 'password');
  t.deepEqual(
    told.map(({ name }) => name),
    ['control-plane'],
  );
});

const ends = ['drained', 'stopped control-plane', 'stopped data-plane'];

/** What was noted behind the starts, both drains as one. */
async function endsOf(run: Run): Promise<string[]> {
  const notes = (await run.notes()).filter(({ what }) => what !== 'started');
  const drained = notes.filter(({ what }) => what === 'drained');
  const others = notes.slice(drained.length).map(({ name, what }) => `${what} ${name}`);
  return drained.length === 2 ? ['drained', ...others] : others;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function isGone(pid: number): Promise<void> {
  while (isAlive(pid)) await wait(20);
}

test('supervisor - says ready once both serve, and stops the control plane between drain and stop of the data plane', async (t) => {
  const run = await start(t);
  await run.ready;
  run.process.kill('SIGTERM');
  const [code] = (await once(run.process, 'exit')) as [number];
  t.is(code, 0);
  t.deepEqual(run.stdout, ['ready']);
  t.deepEqual(await endsOf(run), ends);
});

test('supervisor - keeps that order when a signal reaches the whole group', async (t) => {
  const run = await start(t);
  await run.ready;
  process.kill(-(run.process.pid ?? 0), 'SIGTERM');
  const [code] = (await once(run.process, 'exit')) as [number];
  t.is(code, 0);
  t.deepEqual(await endsOf(run), ends);
});

test('supervisor - starts again whichever dies, at once if it had served, and leaves the other alone', async (t) => {
  const run = await start(t);
  await run.ready;
  const pids = new Map((await run.notes()).map(({ name, pid }) => [name, pid]));
  for (const name of ['data-plane', 'control-plane']) {
    const first = pids.get(name) ?? 0;
    process.kill(first, 'SIGKILL');
    const next = await run.noted((note) => note.name === name && note.pid !== first);
    t.is(next.what, 'started');
  }
  t.is((await run.notes()).length, 4);
  t.deepEqual(run.stdout, ['ready']);
  const exits = () => run.stderr.filter((line) => line.includes('child_exited'));
  while (exits().length < 2) await wait(20);
  t.true(exits().every((line) => line.includes('"restartInMs":0')));
});

test('supervisor - leaves no child behind, even when it is killed', async (t) => {
  const run = await start(t);
  await run.ready;
  const pids = (await run.notes()).map(({ pid }) => pid);
  t.is(pids.length, 2);
  run.process.kill('SIGKILL');
  await Promise.all(pids.map(isGone));
});

test('supervisor - gives up when a first start is hopeless', async (t) => {
  const run = await start(t, 'busy');
  const [code] = (await once(run.process, 'exit')) as [number];
  t.is(code, 1); // an error that nobody caught: the command line turns it into its own exit code
  t.deepEqual(run.stdout, []);
  t.deepEqual(await run.notes(), []);
});

test('supervisor - a second one on the same directory starts nothing and names the first', async (t) => {
  const run = await start(t);
  await run.ready;
  const before = await run.notes();
  const second = await start(t, '127.0.0.1', run);
  const [code] = (await once(second.process, 'close')) as [number];
  t.not(code, 0);
  const said = second.stderr.join('\n');
  t.true(said.includes('ERR_CONFIG_LOCKED'), said);
  t.true(said.includes(`process ${String(run.process.pid)} uses this directory`), said);
  t.deepEqual(await run.notes(), before);
  t.true(before.every(({ pid }) => isAlive(pid)));
});

test('supervisor - takes the directory over from one that was killed, and leaves it free at its end', async (t) => {
  const first = await start(t);
  await first.ready;
  first.process.kill('SIGKILL');
  await once(first.process, 'close');
  const second = await start(t, '127.0.0.1', first);
  await second.ready;
  second.process.kill('SIGTERM');
  await once(second.process, 'close');
  t.false((await readdir(first.dir)).includes('run.lock'));
});
