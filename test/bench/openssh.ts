import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, writeFile, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { userInfo } from 'node:os';
import { freePort } from '../support/deployment.ts';

const sshdPath = '/usr/sbin/sshd';

/** Why OpenSSH cannot take part, or undefined when it can. */
export function missingOpenSsh(): string | undefined {
  if (!existsSync(sshdPath)) return `${sshdPath} is not installed`;
  if (spawnSync('ssh', ['-V']).error) return 'ssh is not installed';
  return undefined;
}

export interface SshPath {
  /** The processes between the local port and the app. */
  readonly pids: number[];
  readonly localPort: number;
  /** Starts another `ssh -L` from nothing; answers its port once it is there. */
  coldConnect(): Promise<{ port: number; stop: () => void }>;
  stop(): Promise<void>;
}

/**
 * The same topology made of OpenSSH: the app's side dials out with `-R`, the user's side with `-L`, both through one
 * `sshd` of its own. It protects each hop, not the way from end to end.
 */
export async function startSshPath(options: {
  readonly dir: string;
  readonly appPort: number;
  readonly cipher: string | undefined;
  /** Wraps the sshd's port in a link, once for each side. */
  readonly link: (port: number) => Promise<number>;
}): Promise<SshPath> {
  const dir = join(options.dir, `ssh-${options.cipher ?? 'default'}`);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  for (const name of ['host', 'user']) {
    spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, name)]);
  }
  await writeFile(join(dir, 'authorized_keys'), await readFile(join(dir, 'user.pub')));
  await chmod(join(dir, 'authorized_keys'), 0o600);
  const port = await freePort();
  await writeFile(
    join(dir, 'sshd_config'),
    [
      `Port ${port}`,
      'ListenAddress 127.0.0.1',
      `HostKey ${join(dir, 'host')}`,
      `AuthorizedKeysFile ${join(dir, 'authorized_keys')}`,
      `PidFile ${join(dir, 'sshd.pid')}`,
      'StrictModes no',
      'UsePAM no',
      'PasswordAuthentication no',
      'AllowTcpForwarding yes',
      'LogLevel ERROR',
    ].join('\n'),
  );
  // Debian's sshd wants this directory for privilege separation and does not make it itself.
  await mkdir('/run/sshd', { recursive: true }).catch(() => undefined);
  const children: ChildProcess[] = [];
  const start = (file: string, args: string[]): ChildProcess => {
    const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    children.push(child);
    return child;
  };
  const sshd = start(sshdPath, ['-D', '-f', join(dir, 'sshd_config')]);
  await untilListening(port);

  const common = (viaPort: number): string[] => [
    '-N',
    '-F', 'none',
    '-p', String(viaPort),
    '-i', join(dir, 'user'),
    '-o', 'StrictHostKeyChecking=no',
    '-o', `UserKnownHostsFile=${join(dir, 'known_hosts')}`,
    '-o', 'LogLevel=ERROR',
    '-o', 'ExitOnForwardFailure=yes',
    '-o', 'BatchMode=yes',
    ...(options.cipher === undefined ? [] : ['-c', options.cipher]),
  ];
  const target = `${userInfo().username}@127.0.0.1`;
  const remotePort = await freePort();
  const far = start('ssh', [
    ...common(await options.link(port)),
    '-R', `127.0.0.1:${remotePort}:127.0.0.1:${options.appPort}`,
    target,
  ]);
  await untilListening(remotePort);
  const nearPort = await options.link(port);
  const openNear = async (): Promise<{ child: ChildProcess; port: number }> => {
    const localPort = await freePort();
    const child = start('ssh', [
      ...common(nearPort),
      '-L', `127.0.0.1:${localPort}:127.0.0.1:${remotePort}`,
      target,
    ]);
    await untilListening(localPort);
    return { child, port: localPort };
  };
  const near = await openNear();
  return {
    pids: [sshd, far, near.child].map((child) => child.pid ?? 0),
    localPort: near.port,
    coldConnect: async () => {
      const cold = await openNear();
      return { port: cold.port, stop: () => cold.child.kill() };
    },
    stop: async () => {
      for (const child of children.reverse()) child.kill();
      await Promise.all(
        children.map((child) => (child.exitCode !== null || child.signalCode !== null ? undefined : new Promise((done) => child.once('exit', done)))),
      );
    },
  };
}

/** Resolves when something accepts connections on the port; gives up after 20 s. */
export async function untilListening(port: number): Promise<void> {
  for (const endAt = performance.now() + 20_000; performance.now() < endAt; await delay(5)) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect({ port, host: '127.0.0.1' });
      socket.once('connect', () => (socket.destroy(), resolve(true)));
      socket.once('error', () => resolve(false));
    });
    if (isUp) return;
  }
  throw new Error(`nothing listens on port ${port}`);
}
