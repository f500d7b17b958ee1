import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mustRun, type Commands } from './program.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));

/** npm reaches the registry as its caller does: by proxies and authorities that only the environment names. */
const npmEnvironment = Object.fromEntries(
  Object.entries(process.env).filter((entry): entry is [string, string] => entry[1] !== undefined),
);

export interface PackedFile {
  readonly path: string;
  readonly mode: number;
}

/** What `npm pack` makes of this checkout. */
export interface Packed {
  readonly tarball: string;
  readonly files: readonly PackedFile[];
}

/** Builds and packs this checkout into `dir`. */
export async function packCheckout(dir: string): Promise<Packed> {
  const output = await mustRun('npm', ['pack', '--json', '--pack-destination', dir], {
    cwd: top,
    env: npmEnvironment,
    timeoutMs: 180_000,
  });
  // What scripts print comes before the answer.
  const [packed] = JSON.parse(output.slice(output.search(/^\[/m))) as [
    { filename: string; files: PackedFile[] },
  ];
  return { tarball: join(dir, packed.filename), files: packed.files };
}

/** Installs a tarball in `dir` together with the Node of that version, on which its commands then run. */
export async function installPackage(
  tarball: string,
  nodeVersion: string,
  dir: string,
): Promise<Commands> {
  await mkdir(dir);
  await writeFile(join(dir, 'package.json'), '{"private":true,"allowScripts":{"node":true}}');
  await mustRun('npm', ['install', '--no-audit', '--no-fund', tarball, `node@${nodeVersion}`], {
    cwd: dir,
    env: npmEnvironment,
    timeoutMs: 300_000,
  });
  const bin = join(dir, 'node_modules', '.bin');
  return {
    ztna: join(bin, 'ztna'),
    connector: join(bin, 'ztna-connector'),
    relay: join(bin, 'ztna-relay'),
    env: { PATH: `${bin}:${process.env['PATH'] ?? ''}` },
  };
}

/** Compiles this checkout into `dist`, as it is published; answers the commands there, on the Node that runs this. */
export async function compileCheckout(): Promise<Commands> {
  const env = {
    ...npmEnvironment,
    PATH: `${dirname(process.execPath)}:${process.env['PATH'] ?? ''}`,
  };
  await mustRun('npm', ['run', '--silent', 'prepare'], { cwd: top, env, timeoutMs: 300_000 });
  const command = (program: string): string => join(top, 'dist', program, 'main.js');
  return {
    ztna: command('client'),
    connector: command('connector'),
    relay: command('relay'),
    env: { PATH: env.PATH },
  };
}
