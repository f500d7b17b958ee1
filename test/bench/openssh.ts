import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { freePort } from '../support/deployment.ts';
import { untilListening } from '../support/listening.ts';
import { startSshd } from '../support/openssh.ts';

export interface SshPath {
  /** The processes between the local port and the app. */
  readonly pids: readonly number[];
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
  const sshd = await startSshd(join(options.dir, `ssh-${options.cipher ?? 'default'}`));
  const clients: ChildProcess[] = [];
  const forward = (viaPort: number, rule: readonly string[]): ChildProcess => {
    const child = spawn(
      'ssh',
      [
        '-N',
        ...sshd.clientArgs,
        '-p',
        String(viaPort),
        '-o',
        'ExitOnForwardFailure=yes',
        ...(options.cipher === undefined ? [] : ['-c', options.cipher]),
        ...rule,
        `${sshd.user}@127.0.0.1`,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    clients.push(child);
    return child;
  };
  const remotePort = await freePort();
  const far = forward(await options.link(sshd.port), [
    '-R',
    `127.0.0.1:${remotePort}:127.0.0.1:${options.appPort}`,
  ]);
  await untilListening(remotePort);
  const nearLink = await options.link(sshd.port);
  const openNear = async (): Promise<{ child: ChildProcess; port: number }> => {
    const port = await freePort();
    const child = forward(nearLink, ['-L', `127.0.0.1:${port}:127.0.0.1:${remotePort}`]);
    await untilListening(port);
    return { child, port };
  };
  const near = await openNear();
  return {
    pids: [sshd.pid, far.pid ?? 0, near.child.pid ?? 0],
    localPort: near.port,
    coldConnect: async () => {
      const cold = await openNear();
      return { port: cold.port, stop: () => cold.child.kill() };
    },
    stop: async () => {
      const ends = clients
        .filter((child) => child.exitCode === null && child.signalCode === null)
        .map((child) => new Promise((resolve) => child.once('exit', resolve)));
      for (const child of clients) child.kill();
      await Promise.all(ends);
      await sshd.stop();
    },
  };
}
