/**
 * Three places with a link between each two neighbours, made of Linux network namespaces:
 *
 *   client ──(link)── relay ──(link)── connector
 *
 * Nothing leaves them: their addresses come from the range set aside for benchmarks (RFC 2544) and no namespace has a
 * way to the machine's own network. The bench runs itself once more inside the client's namespace; what belongs in the
 * other two is started there with `place`.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { makePlace, reasonOf, removePlace, run, setInPlace } from '../support/namespaces.ts';

/** Where programs run, as seen from inside the client's namespace. */
export interface Places {
  /** Names of namespaces. */
  readonly client: string;
  readonly relay: string;
  readonly connector: string;
  /** The relay's address, the same for both sides. */
  readonly relayHost: string;
  readonly connectorHost: string;
}

/** What every link does to traffic, in each of its directions. */
export interface LinkShape {
  /** One way; 0 for none. */
  readonly delayMs: number;
  /** As `tc` writes it, for example `100mbit`. */
  readonly rate: string | undefined;
}

const placesVariable = 'ZTNA_BENCH_PLACES';

const addresses = {
  client: '198.18.1.2',
  relayToClient: '198.18.1.1',
  relay: '198.18.0.1',
  relayToConnector: '198.18.2.1',
  connector: '198.18.2.2',
} as const;

/** The places that this process was started in, if it was. */
export function ownPlaces(): Places | undefined {
  const text = process.env[placesVariable];
  return text === undefined ? undefined : (JSON.parse(text) as Places);
}

/**
 * Builds the places, runs this very program once more in the client's, and answers its exit code; or, where the machine
 * cannot build them, what is missing. Whatever happens, SIGINT, SIGTERM and SIGHUP included, nothing runs in the places
 * afterwards and they are gone, as are the temporary files made there.
 */
export async function runAgainInPlaces(
  shape: LinkShape,
): Promise<{ readonly exitCode: number } | { readonly missing: string }> {
  if (process.platform !== 'linux') return { missing: 'network namespaces are a feature of Linux' };
  if (process.getuid?.() !== 0) return { missing: 'making network namespaces takes root' };
  const prefix = `ztna-bench-${process.pid}`;
  const places: Places = {
    client: `${prefix}-client`,
    relay: `${prefix}-relay`,
    connector: `${prefix}-connector`,
    relayHost: addresses.relay,
    connectorHost: addresses.connector,
  };
  const stopping = new AbortController();
  const stop = (signal: NodeJS.Signals): void => stopping.abort(signal);
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, stop);
  const made: string[] = [];
  const files = await mkdtemp(join(tmpdir(), 'ztna-bench-'));
  try {
    const missing = await build(places, shape, made).then(() => undefined, reasonOf);
    const { signal } = stopping;
    if (missing !== undefined && !signal.aborted) return { missing };
    const exitCode = signal.aborted ? 0 : await runAgain(places, files, signal);
    if (!signal.aborted) return { exitCode };
    return { exitCode: 128 + constants.signals[signal.reason as NodeJS.Signals] };
  } finally {
    for (const name of made) await removePlace(name);
    await rm(files, { recursive: true, force: true });
    for (const signal of signals) process.off(signal, stop);
  }
}

async function runAgain(places: Places, files: string, stop: AbortSignal): Promise<number> {
  const again = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  const child = spawn('ip', ['netns', 'exec', places.client, ...again], {
    stdio: 'inherit',
    env: { ...process.env, TMPDIR: files, [placesVariable]: JSON.stringify(places) },
  });
  stop.addEventListener('abort', () => child.kill());
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

async function build(places: Places, shape: LinkShape, made: string[]): Promise<void> {
  const { client, relay, connector } = places;
  for (const name of [client, relay, connector]) {
    await makePlace(name);
    made.push(name);
  }
  await run('ip', '-n', relay, 'address', 'add', `${addresses.relay}/32`, 'dev', 'lo');
  await setInPlace(relay, 'ip_forward'); // plain TCP goes from the client to the app itself
  const ends = [
    [client, addresses.client, 'to-client', addresses.relayToClient],
    [connector, addresses.connector, 'to-connector', addresses.relayToConnector],
  ] as const;
  for (const [name, address, relayDevice, relayAddress] of ends) {
    const far = ['peer', 'name', relayDevice, 'netns', relay];
    await run('ip', '-n', name, 'link', 'add', 'to-relay', 'type', 'veth', ...far);
    await bringUp(name, 'to-relay', address, shape);
    await bringUp(relay, relayDevice, relayAddress, shape);
    await run('ip', '-n', name, 'route', 'add', 'default', 'via', relayAddress);
  }
}

async function bringUp(
  name: string,
  device: string,
  address: string,
  shape: LinkShape,
): Promise<void> {
  await run('ip', '-n', name, 'address', 'add', `${address}/30`, 'dev', device);
  await shapeDevice(name, device, shape);
  await run('ip', '-n', name, 'link', 'set', device, 'up');
}

/** Shapes what leaves through the device; shaping both ends of a link shapes both of its directions. */
async function shapeDevice(name: string, device: string, shape: LinkShape): Promise<void> {
  const { delayMs, rate } = shape;
  const add = ['-n', name, 'qdisc', 'add', 'dev', device];
  if (delayMs > 0) {
    // The default limit of 1000 packets would drop what is merely on its way.
    const netem = ['netem', 'delay', `${delayMs}ms`, 'limit', '1000000'];
    await run('tc', ...add, 'root', 'handle', '1:', ...netem);
  }
  if (rate !== undefined) {
    const parent = delayMs > 0 ? ['parent', '1:1'] : ['root'];
    const tbf = ['tbf', 'rate', rate, 'burst', '128kb', 'latency', '50ms'];
    await run('tc', ...add, ...parent, 'handle', '10:', ...tbf);
  }
}
