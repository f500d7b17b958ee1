import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Deployment, type Machine } from '../support/deployment.ts';
import { TestCa } from '../support/pki.ts';
import { RunningProgram } from '../support/program.ts';
import { commandLine, residentBytes, withDescendants } from './processes.ts';

export interface IdleTunnels {
  readonly tunnels: number;
  /** Growth of the data plane's resident memory for each idle tunnel. */
  readonly bytesPerTunnel: number;
  /** The same for two bare mutual-TLS WebSockets in one process, which is what a tunnel has in the data plane. */
  readonly bytesPerBarePair: number;
}

/** One device may hold this many at a connector. */
const tunnelsPerMachine = 50;

/** Long enough for what setting up left behind to be collected. */
const settleMs = 3_000;

function startHelper(file: string, ...args: string[]): RunningProgram {
  return new RunningProgram(process.execPath, [
    fileURLToPath(new URL(file, import.meta.url)),
    ...args,
  ]);
}

/** Measures both in this run, one after the other, with `count` tunnels and `count` pairs. */
export async function measureIdleTunnels(
  count: number,
  say: (line: string) => void,
): Promise<IdleTunnels> {
  const deployment = await Deployment.start({
    apps: [{ name: 'idle', target: 'tcp://127.0.0.1:9' }],
  });
  try {
    const dataPlane = withDescendants([deployment.relay.child.pid ?? 0]).find((pid) =>
      commandLine(pid).includes('data-plane/main'),
    );
    if (dataPlane === undefined) throw new Error('the data plane process was not found');
    const machines: Machine[] = [];
    for (let i = 0; i < Math.ceil(count / tunnelsPerMachine); i++)
      machines.push(await deployment.enrol(`user-${i}`));
    say(`${machines.length} machines enrolled`);
    const [first, ...others] = machines;
    const holders: RunningProgram[] = [];
    const hold = async (each: number, ...held: readonly Machine[]): Promise<void> => {
      const holder = startHelper(
        './tunnel-holder.ts',
        String(each),
        'idle',
        ...held.map(({ home }) => home),
      );
      holders.push(holder);
      await holder.line(/^ready/, 0, 300_000);
    };
    // The first machine's tunnels warm the process up and are not counted.
    if (first) await hold(tunnelsPerMachine, first);
    await delay(settleMs);
    const before = residentBytes(dataPlane);
    await hold(tunnelsPerMachine, ...others);
    await delay(settleMs);
    const opened = others.length * tunnelsPerMachine;
    const bytesPerTunnel = (residentBytes(dataPlane) - before) / opened;
    say(`${opened + tunnelsPerMachine} tunnels open`);
    for (const holder of holders) await holder.stop();
    return {
      tunnels: opened + tunnelsPerMachine,
      bytesPerTunnel,
      bytesPerBarePair: await measureBarePairs(deployment.dir, opened, say),
    };
  } finally {
    await deployment.stop();
  }
}

async function measureBarePairs(
  dir: string,
  pairs: number,
  say: (line: string) => void,
): Promise<number> {
  const ca = new TestCa();
  const { keyPem, certificatePem } = ca.issue({});
  const paths = {
    ca: join(dir, 'bare-ca.pem'),
    certificate: join(dir, 'bare.pem'),
    key: join(dir, 'bare.key'),
  };
  await writeFile(paths.ca, ca.certificatePem);
  await writeFile(paths.certificate, certificatePem);
  await writeFile(paths.key, keyPem, { mode: 0o600 });
  const files = [paths.ca, paths.certificate, paths.key];
  const server = startHelper('./bare-websockets.ts', 'server', ...files);
  const port = await server.line(/^\d+$/);
  const clients: RunningProgram[] = [];
  const open = async (count: number): Promise<void> => {
    const client = startHelper('./bare-websockets.ts', 'client', ...files, port, String(count));
    clients.push(client);
    await client.line(/^ready/, 0, 300_000);
  };
  try {
    await open(2 * tunnelsPerMachine);
    await delay(settleMs);
    const before = residentBytes(server.child.pid ?? 0);
    await open(2 * pairs);
    await delay(settleMs);
    say(`${2 * pairs} bare WebSockets open`);
    return (residentBytes(server.child.pid ?? 0) - before) / pairs;
  } finally {
    for (const program of [...clients, server]) await program.stop('SIGKILL');
  }
}
