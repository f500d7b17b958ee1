/**
 * `npm run bench`: measures the product's path beside others, all in one run on one machine, and prints ratios.
 *
 *   npm run bench                       throughput, CPU and latency
 *   npm run bench -- --delay 20ms       the same with that one-way delay on each of the two links
 *   npm run bench -- --rate 100mbit     the same with that rate on each of the two links (root on Linux only)
 *   npm run bench -- --seconds 10       how long each direction is loaded (default 5)
 *   npm run bench -- --only ztna,plain  leave paths out
 *   npm run bench -- --tunnels 1000     how many idle tunnels the memory figure is taken at (0: leave it out)
 *   npm run bench -- --json FILE        also write every figure there (default bench-results.json)
 *   npm run bench -- risk               false alarms and detections of the risk score (see risk.ts)
 *   npm run bench -- revocation         how long live tunnels carry bytes after a decision (see revocation.ts)
 *   npm run bench -- sign-in-storm      what a thousand sign-ins at once do to others (see sign-in-storm.ts)
 *   npm run bench -- verification       what it costs to verify tunnels again (see verification.ts)
 *
 * Our programs are compiled first and run from `dist`, as they are published.
 *
 * Links are made of network namespaces, with `netem` and `tbf`, where that is possible: it takes root, `ip`, `tc` and
 * a kernel that has them. Else a delay is made in user space, and a rate is refused. The table says which it was.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir, totalmem, release } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { measureIdleTunnels, type IdleTunnels } from './idle-tunnels.ts';
import { startSshPath } from './openssh.ts';
import { missingOpenSsh } from '../support/openssh.ts';
import { cpuSeconds } from './processes.ts';
import { ownPlaces, runAgainInPlaces } from './namespaces.ts';
import { download, firstEchoMs, median, roundTripMs, upload, type Endpoint } from './traffic.ts';
import { printResults, type PathResult } from './report.ts';
import { Deployment } from '../support/deployment.ts';
import { compileCheckout } from '../support/package.ts';
import { inPlace } from '../support/program.ts';

if (process.argv[2] === 'risk') {
  const { runRiskBench } = await import('./risk.ts');
  await runRiskBench(process.argv.slice(3));
  process.exit(0);
}

if (process.argv[2] === 'revocation') {
  const { runRevocationBench } = await import('./revocation.ts');
  await runRevocationBench(process.argv.slice(3));
  process.exit(0);
}

if (process.argv[2] === 'sign-in-storm') {
  const { runSignInStormBench } = await import('./sign-in-storm.ts');
  await runSignInStormBench(process.argv.slice(3));
  process.exit(0);
}

if (process.argv[2] === 'verification') {
  const { runVerificationBench } = await import('./verification.ts');
  await runVerificationBench(process.argv.slice(3));
  process.exit(0);
}

const { values } = parseArgs({
  options: {
    delay: { type: 'string', default: '0ms' },
    rate: { type: 'string' },
    seconds: { type: 'string', default: '5' },
    rounds: { type: 'string', default: '3' },
    tunnels: { type: 'string', default: '1000' },
    only: { type: 'string' },
    json: { type: 'string', default: 'bench-results.json' },
  },
});
const delayMs = Number(/^(\d+)ms$/.exec(values.delay)?.[1] ?? Number.NaN);
const seconds = Number(values.seconds);
const rounds = Number(values.rounds);
const { rate } = values;
const isRate = rate === undefined || /^[1-9]\d*[kmg]bit$/.test(rate);
if (!(delayMs >= 0) || !isRate || !(seconds > 0) || !(rounds > 0)) {
  console.error(
    'error: --delay takes milliseconds such as 20ms, --rate a rate such as 100mbit, --seconds and --rounds numbers',
  );
  process.exit(2);
}
const wanted = values.only?.split(',');

const places = ownPlaces();
if (!places && (delayMs > 0 || rate !== undefined)) {
  const done = await runAgainInPlaces({ delayMs, rate });
  if ('exitCode' in done) process.exit(done.exitCode);
  if (rate !== undefined) {
    console.error(`error: no links of that kind can be made here: ${done.missing}`);
    process.exit(2);
  }
  console.error(`delaying in user space, as netem cannot be had: ${done.missing}`);
}
const delaysInUserSpace = delayMs > 0 && !places;

/** One way from this process to the app. */
interface Path {
  readonly name: string;
  readonly isEndToEnd: boolean;
  readonly at: Endpoint;
  readonly pids: readonly number[];
  /** Milliseconds from starting the client program to the first echoed byte. */
  readonly coldMs?: () => Promise<number>;
  stop(): Promise<void>;
}

const children: ChildProcess[] = [];

function loopback(port: number): Endpoint {
  return { host: '127.0.0.1', port };
}

/** Starts one of the bench's own programs, which prints its port. */
async function startHelper(file: string, args: readonly string[], place?: string): Promise<number> {
  const script = fileURLToPath(new URL(file, import.meta.url));
  const child = spawn(...inPlace(place, process.execPath, [script, ...args]), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  children.push(child);
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return Number(line);
}

/** A port in front of `port` with the delay of one link, or of several in one, on it, where no real link has it. */
async function link(port: number, links = 1): Promise<number> {
  if (!delaysInUserSpace) return port;
  return startHelper('./delay-link.ts', [String(links * delayMs), String(port)]);
}

async function plainPath(appPort: number): Promise<Path> {
  return {
    name: 'plain TCP',
    isEndToEnd: false,
    at: {
      host: places?.connectorHost ?? '127.0.0.1',
      port: await link(appPort, 2), // one connection over both links, so one window for both
    },
    pids: [],
    stop: () => Promise.resolve(),
  };
}

async function ztnaPath(appPort: number): Promise<Path> {
  const deployment = await Deployment.start({
    commands: await compileCheckout(),
    apps: [{ name: 'bench', target: `tcp://127.0.0.1:${appPort}` }],
    ...(places ? { places } : {}),
    ...(delaysInUserSpace ? { link } : {}),
  });
  const machine = await deployment.enrol();
  const { program, port } = await deployment.connect(machine, 'bench');
  return {
    name: 'ztna',
    isEndToEnd: true,
    at: loopback(port),
    pids: [deployment.relay, deployment.connector, program].map(({ child }) => child.pid ?? 0),
    coldMs: async () => {
      const startedAt = performance.now();
      const cold = machine.start('connect', 'bench', '--listen', '0', '--json');
      const { address } = await cold.event('listening');
      await firstEchoMs(loopback(Number(/:(\d+)$/.exec(String(address))?.[1])));
      const elapsed = performance.now() - startedAt;
      await cold.stop();
      return elapsed;
    },
    stop: () => deployment.stop(),
  };
}

function sshPath(name: string, cipher: string | undefined) {
  return async (appPort: number, dir: string): Promise<Path> => {
    const ssh = await startSshPath({ dir, appPort, cipher, link, places });
    return {
      name,
      isEndToEnd: false,
      at: loopback(ssh.localPort),
      pids: ssh.pids,
      coldMs: async () => {
        const startedAt = performance.now();
        const cold = await ssh.coldConnect();
        await firstEchoMs(loopback(cold.port));
        const elapsed = performance.now() - startedAt;
        cold.stop();
        return elapsed;
      },
      stop: () => ssh.stop(),
    };
  };
}

async function measure(path: Path): Promise<PathResult> {
  const direction = async (move: typeof upload) => {
    const gbits: number[] = [];
    const costs: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const before = cpuSeconds(path.pids);
      const moved = await move(path.at, seconds);
      const used = cpuSeconds(path.pids) - before;
      gbits.push((moved.bytes * 8) / moved.seconds / 1e9);
      costs.push(path.pids.length > 0 ? used / (moved.bytes / 1e9) : Number.NaN);
    }
    return { gbitPerSecond: median(gbits), cpuSecondsPerGb: median(costs) };
  };
  await upload(path.at, 1); // compiled code and grown windows, as in a tunnel that has been in use
  const up = await direction(upload);
  const down = await direction(download);
  const roundTrip = await roundTripMs(path.at, 50);
  const echoes: number[] = [];
  for (let i = 0; i < 50; i++) echoes.push(await firstEchoMs(path.at));
  const colds: number[] = [];
  if (path.coldMs) for (let i = 0; i < 5; i++) colds.push(await path.coldMs());
  return {
    name: path.name,
    isEndToEnd: path.isEndToEnd,
    up,
    down,
    roundTripMs: roundTrip,
    newConnectionMs: median(echoes),
    coldConnectMs: colds.length > 0 ? median(colds) : Number.NaN,
  };
}

function describeLinks(): string {
  const parts: string[] = [];
  if (delayMs > 0) parts.push(`${delayMs} ms one way${places ? ' (netem)' : ''}`);
  if (rate !== undefined) parts.push(`${rate} each way (tbf)`);
  if (parts.length === 0) return 'loopback';
  const made = places
    ? 'between network namespaces'
    : 'delayed in user space, one TCP window a connection';
  return `${parts.join(' and ')} on each of two links, ${made}`;
}

const dir = await mkdtemp(join(tmpdir(), 'ztna-bench-'));
const results: PathResult[] = [];
const left: string[] = [];
let idle: IdleTunnels | undefined;
try {
  const appPort = await startHelper(
    './traffic-server.ts',
    places ? ['0.0.0.0'] : [],
    places?.connector,
  );
  const kinds: [string, (appPort: number, dir: string) => Promise<Path>][] = [
    ['plain', plainPath],
    ['ztna', ztnaPath],
    ['ssh', sshPath('OpenSSH, default cipher', undefined)],
    ['ssh-gcm', sshPath('OpenSSH, aes128-gcm', 'aes128-gcm@openssh.com')],
  ];
  for (const [key, start] of kinds) {
    if (wanted && !wanted.includes(key)) continue;
    const missing = key.startsWith('ssh') ? missingOpenSsh() : undefined;
    if (missing) {
      left.push(`${key}: ${missing}`);
      continue;
    }
    console.error(`measuring ${key} …`);
    const path = await start(appPort, dir);
    try {
      results.push(await measure(path));
    } finally {
      await path.stop();
    }
  }
  const count = Number(values.tunnels);
  if (count > 0 && delayMs === 0 && !places && (!wanted || wanted.includes('memory'))) {
    console.error(`measuring memory at ${count} idle tunnels …`);
    idle = await measureIdleTunnels(count, (line) => console.error(`  ${line}`));
  }
  const machine = {
    cpus: `${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}`,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
  };
  const links = describeLinks();
  printResults({ results, idle, left, machine, link: links });
  await writeFile(
    values.json,
    JSON.stringify(
      { at: new Date().toISOString(), machine, link: links, seconds, rounds, results, idle, left },
      null,
      2,
    ) + '\n',
  );
  console.error(`every figure: ${values.json}`);
} finally {
  for (const child of children) child.kill();
  await rm(dir, { recursive: true, force: true });
}
