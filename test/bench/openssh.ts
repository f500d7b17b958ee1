import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { freePort } from '../support/deployment.ts';
import { untilListening } from '../support/listening.ts';
import { startSshd } from '../support/openssh.ts';
import { inPlace } from '../support/program.ts';
import type { Places } from './namespaces.ts';

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
  /** Where the sshd and the app's side run; by default all is on loopback. */
  readonly places: Places | undefined;
}): Promise<SshPath> {
  const { places } = options;
  const host = places?.relayHost ?? '127.0.0.1';
  const sshd = await startSshd(
    join(options.dir, `ssh-${options.cipher ?? 'default'}`),
    places && { host, place: places.relay },
  );
  const clients: ChildProcess[] = [];
  const forward = (viaPort: number, rule: readonly string[], place?: string): ChildProcess => {
    const child = spawn(
      ...inPlace(place, 'ssh', [
        '-N',
        ...sshd.clientArgs,
        '-p',
        String(viaPort),
        '-o',
        'ExitOnForwardFailure=yes',
        ...(options.cipher === undefined ? [] : ['-c', options.cipher]),
        ...rule,
        `${sshd.user}@${host}`,
      ]),
      { stdio: ['ignore', 'ignore', 'inherit'] },
    );
    clients.push(child);
    return child;
  };
  const remotePort = await freePort();
  const far = forward(
    await options.link(sshd.port),
    ['-R', `${host}:${remotePort}:127.0.0.1:${options.appPort}`],
    places?.connector,
  );
  await untilListening(remotePort, host);
  const nearLink = await options.link(sshd.port);
  const openNear = async (): Promise<{ child: ChildProcess; port: number }> => {
    const port = await freePort();
    const child = forward(nearLink, ['-L', `127.0.0.1:${port}:${host}:${remotePort}`]);
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
