/**
 * `npm run bench -- revocation`: how long after a decision live tunnels still carry bytes.
 *
 *   npm run bench -- revocation                     1,000 tunnels, each trigger once
 *   npm run bench -- revocation --tunnels 200       fewer
 *   npm run bench -- revocation --only policy,user  some triggers
 *   npm run bench -- revocation --json FILE         also writes every figure there
 *
 * `push_cut` is another matter: the control plane is frozen with every connection left open, so that neither entries nor
 * renewals arrive, and latency is from that instant to the last byte; the lease is 12 s there. In `connector_alone` the relay
 * and the clients are hostile as well: see connector-alone.ts; latency is from the last renewal.
 *
 * Twenty of the tunnels carry a byte every 5 ms, the others one a second. Latency is from the instant of the audit
 * record of the decision, which is made before its commit (for a policy, the last of the one transaction that activates it), to
 * the last byte that arrived at the app (up) and back at the client (down): the same machine's clock tells both.
 */
import { rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Deployment, type Machine } from '../support/deployment.ts';
import { RunningProgram, type Commands } from '../support/program.ts';
import { compileCheckout } from '../support/package.ts';
import { commandLine, withDescendants } from './processes.ts';
import { connectorAlone } from './connector-alone.ts';
import { SignalSender } from './signal-sender.ts';

const triggers = [
  'user',
  'device',
  'connector',
  'policy',
  'posture',
  'risk',
  'signal',
  'push_cut',
  'connector_alone',
] as const;
type Trigger = (typeof triggers)[number];

/** Tunnels of one machine: as many as a device may ask for at once. */
const tunnelsPerMachine = 50;
const fastTunnels = 20;
/** How often a tunnel carries a byte that nobody else speaks for. */
const slowEveryMs = 250;
/** Longer than any latency that could still be called one. */
const watchMs = 8_000;
/** Where the control plane is frozen the lease alone ends tunnels: three times as long, and five seconds. */
const cutIntervalSeconds = 4;
const cutWatchMs = (3 * cutIntervalSeconds + 8) * 1_000;

const policy = {
  'bench.cedar':
    '@id("bench") permit (principal in Group::"staff", action == Action::"connect", resource) when { context.posture.mark == "on" && context.risk.score < 50 };',
};
const nothing = { 'none.cedar': '@id("none") forbid (principal, action, resource);' };

export interface RevocationFigures {
  readonly trigger: Trigger;
  readonly tunnels: number;
  /** Of those, how many ended or were suspended, as the audit log has it. */
  readonly cut: number;
  /** Milliseconds from the decision to the last byte, 50 %, 99 % and the longest. */
  readonly upMs: readonly [number, number, number];
  readonly downMs: readonly [number, number, number] | null;
}

/** Notes of each tunnel when its last byte came to the app; the first line of a connection names the tunnel. */
class LastBytes {
  readonly atMs = new Map<string, number>();
  readonly server: Server;

  constructor() {
    this.server = createServer((socket) => {
      let tunnel = '';
      let isNamed = false;
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => {
        if (!isNamed) {
          tunnel += chunk.toString('latin1');
          const end = tunnel.indexOf('\n');
          if (end < 0) return;
          tunnel = tunnel.slice(0, end);
          isNamed = true;
        }
        this.atMs.set(tunnel, Date.now());
        socket.write('.');
      });
    });
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    const address = this.server.address();
    return typeof address === 'object' && address ? address.port : 0;
  }
}

interface Bench {
  readonly deployment: Deployment;
  readonly machines: readonly Machine[];
  readonly mark: string;
  readonly signals: SignalSender;
}

async function pull(
  trigger: Trigger,
  { deployment, machines, mark, signals }: Bench,
): Promise<number | undefined> {
  const users = machines.map((_, at) => `user-${String(at)}`);
  switch (trigger) {
    case 'user':
      for (const user of users) await deployment.admin('user', 'disable', user);
      return undefined;
    case 'device': {
      const rows = (await deployment.admin('device', 'list', '--json')).trim().split('\n');
      for (const row of rows) {
        const { id } = JSON.parse(row) as { id: string };
        await deployment.admin('revoke', 'device', id, '--reason', 'bench');
      }
      return undefined;
    }
    case 'connector': {
      const [row = '{}'] = (await deployment.admin('connector', 'list', '--json')).split('\n');
      const { id } = JSON.parse(row) as { id: string };
      await deployment.admin('connector', 'remove', id);
      return undefined;
    }
    case 'policy':
      await deployment.applyPolicies(nothing);
      return undefined;
    case 'posture':
      await rm(mark);
      return undefined;
    case 'risk':
      for (const user of users)
        await signals.send('risk-level-change', user, { principal: 'USER', current_level: 'HIGH' });
      return undefined;
    case 'signal':
      for (const user of users) await signals.send('session-revoked', user, {});
      return undefined;
    case 'push_cut':
      signalControlPlane(deployment, 'SIGSTOP');
      return Date.now();
    case 'connector_alone':
      throw new Error('it has no deployment');
  }
}

function signalControlPlane(deployment: Deployment, signal: 'SIGSTOP' | 'SIGCONT'): void {
  for (const pid of withDescendants([deployment.relay.child.pid ?? 0])) {
    if (commandLine(pid).includes('control-plane/main')) process.kill(pid, signal);
  }
}

/**
 * When each tunnel was decided to be cut, as the audit log has it. What one policy denies is denied by the transaction that
 * activates it, which is committed no earlier than its last record was made.
 */
async function decisions(deployment: Deployment, trigger: Trigger): Promise<Map<string, number>> {
  const lines = (await deployment.admin('audit', 'export', '--since', '1h')).trim().split('\n');
  const at = new Map<string, { readonly atMs: number; readonly batch: string }>();
  const committedMs = new Map<string, number>();
  for (const line of lines) {
    const record = JSON.parse(line) as CutRecord;
    const isCut = record.action === 'tunnel.end' || record.action === 'tunnel.suspend';
    if (!isCut || at.has(record.subject)) continue;
    const batch = trigger === 'policy' ? 'all' : record.subject;
    at.set(record.subject, { atMs: record.atMs, batch });
    committedMs.set(batch, Math.max(committedMs.get(batch) ?? 0, record.atMs));
  }
  return new Map(
    [...at].map(([tunnel, { atMs, batch }]) => [tunnel, committedMs.get(batch) ?? atMs]),
  );
}

interface CutRecord {
  readonly action: string;
  readonly subject: string;
  readonly atMs: number;
}

function figuresOf(decided: ReadonlyMap<string, number>, last: ReadonlyMap<string, number>) {
  return percentiles(
    [...decided].map(([tunnel, atMs]) => Math.max(0, (last.get(tunnel) ?? 0) - atMs)),
  );
}

function percentiles(unsorted: readonly number[]) {
  const ms = unsorted.toSorted((a, b) => a - b);
  const at = (part: number) => ms[Math.min(ms.length - 1, Math.floor(ms.length * part))] ?? 0;
  return [at(0.5), at(0.99), ms.at(-1) ?? 0] as const;
}

async function measureAlone(tunnels: number): Promise<RevocationFigures> {
  const leaseMs = 3 * cutIntervalSeconds * 1_000;
  const { cut, afterLeaseMs } = await connectorAlone(tunnels, { leaseMs, everyMs: slowEveryMs });
  const upMs = percentiles(afterLeaseMs.map((ms) => leaseMs + ms));
  return { trigger: 'connector_alone', tunnels, cut, upMs, downMs: null };
}

async function measure(
  trigger: Trigger,
  tunnels: number,
  commands: Commands,
): Promise<RevocationFigures> {
  const app = new LastBytes();
  const port = await app.listen();
  const signals = await SignalSender.create();
  const deployment = await Deployment.start({
    apps: [{ name: 'busy', target: `tcp://127.0.0.1:${String(port)}`, health: 'off' }],
    policies: policy,
    commands,
    relayConfig: {
      posture: '{ maxAge: 45s, checks: [{ id: mark, file: /nobody/reads/this }] }',
      signals: signals.relayConfig,
      ...(trigger === 'push_cut' && { verification: `{ interval: ${cutIntervalSeconds}s }` }),
    },
  });
  let clients: RunningProgram | undefined;
  try {
    const mark = join(deployment.dir, 'mark');
    await writeFile(mark, '');
    const machines: Machine[] = [];
    const count = Math.ceil(tunnels / tunnelsPerMachine);
    for (let at = 0; at < count; at++) machines.push(await deployment.enrol(`user-${String(at)}`));
    clients = new RunningProgram(process.execPath, [
      fileURLToPath(new URL('./revocation-clients.ts', import.meta.url)),
      String(Math.ceil(tunnels / count)),
      'busy',
      mark,
      String(fastTunnels),
      ...machines.map(({ home }) => home),
    ]);
    await clients.line(/^ready/, 0, 600_000);
    await delay(2_000);
    signals.at(deployment.url);
    const cutAtMs = await pull(trigger, { deployment, machines, mark, signals });
    await delay(cutAtMs === undefined ? watchMs : cutWatchMs);
    clients.child.stdin.write('report\n');
    const back = JSON.parse(await clients.line(/^\{/)) as Record<string, number>;
    const stillMs = Date.now() - 1_500; // what carried bytes since then is not cut
    const decided =
      cutAtMs === undefined
        ? await decisions(deployment, trigger)
        : new Map(
            Object.entries(back)
              .filter(([tunnel]) => (app.atMs.get(tunnel) ?? 0) < stillMs)
              .map(([tunnel]) => [tunnel, cutAtMs]),
          );
    return {
      trigger,
      tunnels: Object.keys(back).length,
      cut: decided.size,
      upMs: figuresOf(decided, app.atMs),
      downMs: figuresOf(decided, new Map(Object.entries(back))),
    };
  } finally {
    await clients?.stop('SIGKILL');
    if (trigger === 'push_cut') signalControlPlane(deployment, 'SIGCONT');
    await deployment.stop();
    await signals.remove();
    app.server.close();
  }
}

export async function runRevocationBench(args: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      tunnels: { type: 'string', default: '1000' },
      only: { type: 'string' },
      json: { type: 'string' },
    },
  });
  const wanted = values.only?.split(',') ?? triggers;
  const commands = await compileCheckout();
  const figures: RevocationFigures[] = [];
  for (const trigger of triggers.filter((name) => wanted.includes(name))) {
    console.error(`${trigger}: opening ${values.tunnels} tunnels`);
    const tunnels = Number(values.tunnels);
    figures.push(
      await (trigger === 'connector_alone'
        ? measureAlone(tunnels)
        : measure(trigger, tunnels, commands)),
    );
  }
  console.log('| trigger | tunnels | cut | last byte up ms: p50 / p99 / longest | down |');
  console.log('| --- | --- | --- | --- | --- |');
  for (const { trigger, tunnels, cut, upMs, downMs } of figures) {
    console.log(
      `| ${trigger} | ${String(tunnels)} | ${String(cut)} | ${upMs.join(' / ')} | ${downMs?.join(' / ') ?? '–'} |`,
    );
  }
  if (values.json !== undefined) await writeFile(values.json, JSON.stringify(figures, null, 2));
}
