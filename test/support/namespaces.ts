import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

/** Makes an empty network namespace with its loopback device up, or leaves nothing. */
export async function makePlace(name: string): Promise<void> {
  await run('ip', 'netns', 'add', name);
  try {
    await run('ip', '-n', name, 'link', 'set', 'lo', 'up');
    // What one path taught the kernel about a peer must not help or hinder the next.
    await setInPlace(name, 'tcp_no_metrics_save');
  } catch (error) {
    await removePlace(name);
    throw error;
  }
}

/** Turns a setting of IPv4 on there. */
export async function setInPlace(name: string, setting: string): Promise<void> {
  await run('ip', 'netns', 'exec', name, 'sh', '-c', `echo 1 >/proc/sys/net/ipv4/${setting}`);
}

/** Ends what still runs in the namespace, then removes it; a namespace outlives its name while something runs in it. */
export async function removePlace(name: string): Promise<void> {
  try {
    for (let tries = 0; tries < 100; tries++) {
      const pids = (await run('ip', 'netns', 'pids', name)).split('\n').filter(Boolean).map(Number);
      if (pids.length === 0) break;
      for (const pid of pids) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // it has just ended
        }
      }
      await delay(20);
    }
    await run('ip', 'netns', 'del', name);
  } catch (error) {
    console.error(`${name}: ${reasonOf(error)}`);
  }
}

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Runs a command that must succeed; answers its standard output. */
export async function run(file: string, ...args: string[]): Promise<string> {
  // A process group of its own: Ctrl-C must not end a command that builds or removes halfway.
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  const out: string[] = [];
  const errors: string[] = [];
  child.stdout.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => errors.push(text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code === 0) return out.join('');
  throw new Error(`${file} ${args.join(' ')}: ${errors.join('').trim() || `ended with ${code}`}`);
}
