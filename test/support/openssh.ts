import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { freePort } from './deployment.ts';
import { untilListening } from './listening.ts';
import { inPlace } from './program.ts';

const sshdPath = '/usr/sbin/sshd';

/** Why OpenSSH cannot take part, or undefined when it can. */
export function missingOpenSsh(): string | undefined {
  if (!existsSync(sshdPath)) return `${sshdPath} is not installed`;
  if (spawnSync('ssh', ['-V']).error) return 'ssh is not installed';
  return undefined;
}

export interface Sshd {
  readonly port: number;
  readonly pid: number;
  readonly user: string;
  /** Arguments for `ssh` and `scp` that trust this server, use its key and read no configuration of the machine. */
  readonly clientArgs: readonly string[];
  stop(): Promise<void>;
}

/** Starts an `sshd` of its own on a spare port, with keys made in `dir`: on loopback, or in a network namespace. */
export async function startSshd(
  dir: string,
  where: { readonly host?: string; readonly place?: string } = {},
): Promise<Sshd> {
  const { host = '127.0.0.1', place } = where;
  await mkdir(dir, { recursive: true, mode: 0o700 });
  for (const name of ['host', 'user']) {
    spawnSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', join(dir, name)]);
  }
  await writeFile(join(dir, 'authorized_keys'), await readFile(join(dir, 'user.pub')), {
    mode: 0o600,
  });
  const port = await freePort();
  const config = {
    Port: port,
    ListenAddress: host,
    HostKey: join(dir, 'host'),
    AuthorizedKeysFile: join(dir, 'authorized_keys'),
    PidFile: 'none',
    StrictModes: 'no',
    UsePAM: 'no',
    PasswordAuthentication: 'no',
    AllowTcpForwarding: 'yes',
    GatewayPorts: 'clientspecified',
    MaxStartups: '200',
    LogLevel: 'ERROR',
    Subsystem: 'sftp internal-sftp',
  };
  await writeFile(
    join(dir, 'sshd_config'),
    Object.entries(config)
      .map(([key, value]) => `${key} ${value}\n`)
      .join(''),
  );
  // Debian's sshd wants this directory for privilege separation and does not make it itself.
  await mkdir('/run/sshd', { recursive: true }).catch(() => undefined);
  const command = inPlace(place, sshdPath, ['-D', '-f', join(dir, 'sshd_config')]);
  const child = spawn(...command, { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await untilListening(port, host);
  return {
    port,
    pid: child.pid ?? 0,
    user: userInfo().username,
    clientArgs: [
      '-F',
      'none',
      '-i',
      join(dir, 'user'),
      '-o',
      'StrictHostKeyChecking=no',
      '-o',
      `UserKnownHostsFile=${join(dir, 'known_hosts')}`,
      '-o',
      'LogLevel=ERROR',
      '-o',
      'BatchMode=yes',
    ],
    stop: async () => {
      child.kill();
      await ended;
    },
  };
}
